/** A code listing with a button that copies it. */

import { button, element, region } from "./dom.js";

/** @returns {(html: string) => void} shows code that the server has coloured; none is an empty string */
export function copyable(parent, title) {
  const box = element("div", "listing");
  const figure = element("figure");
  const caption = element("figcaption", "heading");
  const said = element("span", "said");
  said.setAttribute("aria-live", "polite");
  const copy = button("Copy", copyIt, "copy");
  copy.setAttribute("aria-label", `Copy: ${title}`);
  caption.append(element("span", "plot-title", title), said, copy);
  const pre = region(element("pre"), title);
  const code = element("code");
  pre.append(code);
  figure.append(caption, pre);
  box.append(figure);
  parent.append(box);

  async function copyIt() {
    try {
      await navigator.clipboard.writeText(code.textContent);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(code);
      said.textContent = "Selected; copy it with Ctrl+C.";
    }
  }
  let shown = null;
  return (html) => {
    if (html === shown) return;
    shown = html;
    code.innerHTML = html;
    copy.disabled = !html;
    said.textContent = "";
  };
}
