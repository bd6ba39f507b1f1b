/** A chart with things to drag: by pointer, touch or keyboard, without asking the server. */

import { element, svgElement } from "../widgets/dom.js";
import { Plot } from "./plot.js";

const PAGE = 10; // PageUp and PageDown go ten steps

export class DragPlot extends Plot {
  constructor(parent, options) {
    super(parent, options);
    this.stage = element("div", "drag-stage");
    this.svg.replaceWith(this.stage);
    this.stage.append(this.svg);
  }

  /** A filled shape behind the lines; the class decides how it looks. @returns {SVGPathElement} */
  area(kind) {
    const path = svgElement("path", { class: `area ${kind}` });
    this.lines.prepend(path);
    return path;
  }

  /** SVG path of the part of the plot between two values of x. */
  band(from, to) {
    return this.box(from, to, ...this.y.domain);
  }

  box(x0, x1, y0, y1) {
    const [left, right] = [this.px(x0), this.px(x1)];
    return right <= left ? "" : `M${left} ${this.py(y0)}H${right}V${this.py(y1)}H${left}Z`;
  }

  /** The value of x under a pointer. */
  valueAt(event) {
    const [low, high] = this.x.domain;
    const share = (event.clientX - this.stage.getBoundingClientRect().left - this.px(low)) / (this.px(high) - this.px(low));
    return low + share * (high - low);
  }

  /**
   * Something that is dragged along x.
   * @param {{ kind: string, label: string, step: number, range: () => [number, number], get: () => number,
   *           set: (x: number) => void, everywhere?: boolean }} options
   *     everywhere: pressing anywhere in the plot takes hold of it
   * @returns {{ place: (x: number, y: number, text: string) => void, node: HTMLElement }}
   */
  handle({ kind, label, step, range, get, set, everywhere = false }) {
    const node = element("div", `handle ${kind}`);
    node.setAttribute("aria-label", label);
    slide(node, { step, range, get, set });
    this.stage.append(node);
    dragged(node, (event) => {
      node.focus({ preventScroll: true });
      const apart = get() - this.valueAt(event);
      return (moved) => set(within(this.valueAt(moved) + apart, range()));
    });
    if (everywhere) {
      dragged(this.svg, (event) => {
        set(within(this.valueAt(event), range()));
        node.focus({ preventScroll: true });
        return (moved) => set(within(this.valueAt(moved), range()));
      });
    }
    return {
      node,
      place: (x, y, text) => {
        node.style.transform = `translate(${this.px(x).toFixed(1)}px, ${this.py(y).toFixed(1)}px)`;
        describeSlider(node, get(), range(), text);
      },
    };
  }
}

/** Follow a pointer from press to release. @param {(event: PointerEvent) => ((event: PointerEvent) => void)} begin */
export function dragged(node, begin) {
  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault(); // no text is selected on the way
    const move = begin(event);
    const end = () => {
      node.removeEventListener("pointermove", move);
      node.classList.remove("held");
    };
    node.setPointerCapture(event.pointerId);
    node.classList.add("held");
    node.addEventListener("pointermove", move);
    node.addEventListener("lostpointercapture", end, { once: true });
  });
}

/** The keys of a slider: arrows, PageUp and PageDown go to whole steps, Home and End to the ends. */
export function slide(node, { step, range, get, set }) {
  node.setAttribute("role", "slider");
  node.tabIndex = 0;
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: PAGE, PageDown: -PAGE };
  node.addEventListener("keydown", (event) => {
    const [low, high] = range();
    const ends = { Home: low, End: high };
    if (event.key in steps) set(within((Math.round(get() / step) + steps[event.key]) * step, [low, high]));
    else if (event.key in ends) set(ends[event.key]);
    else return;
    event.preventDefault();
  });
}

export function describeSlider(node, value, [low, high], text) {
  node.setAttribute("aria-valuemin", low);
  node.setAttribute("aria-valuemax", high);
  node.setAttribute("aria-valuenow", within(value, [low, high]));
  node.setAttribute("aria-valuetext", text);
}

export function within(value, [low, high]) {
  return Math.min(Math.max(value, low), high);
}
