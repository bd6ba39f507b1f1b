/** Numbers in a text that say where they come from: pointed at, tapped, or reached with the keyboard. */

import { button, element } from "../../static/widgets/dom.js";
import { minus, readable } from "../../static/widgets/format.js";

let tips = 0;

export class Numbers {
  /** @param {HTMLElement} parent  where the one tooltip lives */
  constructor(parent) {
    this.tip = element("div", "tip");
    this.tip.id = `tip-${tips++}`;
    this.tip.setAttribute("role", "tooltip");
    this.tip.hidden = true;
    this.parent = parent;
    parent.append(this.tip);
    parent.addEventListener("keydown", (event) => event.key === "Escape" && this.hide());
    this.tip.addEventListener("pointerleave", () => this.hide());
  }

  /**
   * Text with every `{name}` replaced by its number.
   * @param {string} text  @param {Object<string, number>} values  @param {(name: string) => string} origin
   */
  text(text, values, origin) {
    const nodes = text.split(/\{(\w+)\}/).map((part, i) => (i % 2 ? this.number(values[part], () => origin(part)) : part));
    const line = element("span");
    line.append(...nodes);
    return line;
  }

  number(value, origin) {
    const show = () => this.show(node, `${origin()} In full: ${minus(String(value))}`);
    const node = button(readable(value), show, "number");
    node.addEventListener("pointerenter", show);
    node.addEventListener("focus", show);
    node.addEventListener("blur", () => this.hide());
    node.addEventListener("pointerleave", (event) => {
      if (event.relatedTarget !== this.tip && document.activeElement !== node) this.hide();
    });
    return node;
  }

  show(node, words) {
    this.tip.textContent = words;
    this.tip.hidden = false;
    this.described?.removeAttribute("aria-describedby");
    this.described = node;
    node.setAttribute("aria-describedby", this.tip.id);
    const box = this.parent.getBoundingClientRect();
    const at = node.getBoundingClientRect();
    const left = Math.min(at.left - box.left, box.width - this.tip.offsetWidth);
    Object.assign(this.tip.style, { left: `${Math.max(0, left)}px`, top: `${at.bottom - box.top}px` });
  }

  hide() {
    this.tip.hidden = true;
    this.described?.removeAttribute("aria-describedby");
  }
}
