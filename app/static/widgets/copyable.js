/** A code listing with a button that copies it. */

import { element } from "./dom.js";

/** @returns {(html: string) => void} shows code that the server has coloured; none is an empty string */
export function copyable(parent, title) {
  const box = element("div", "listing");
  const figure = element("figure");
  const caption = element("figcaption", "heading");
  const said = element("span", "said");
  said.setAttribute("aria-live", "polite");
  const copy = element("button", "copy", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", `Copy: ${title}`);
  caption.append(element("span", "plot-title", title), said, copy);
  const pre = element("pre");
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", title);
  const code = element("code");
  pre.append(code);
  figure.append(caption, pre);
  box.append(figure);
  parent.append(box);

  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(code);
      said.textContent = "Selected; copy it with Ctrl+C.";
    }
  });
  let shown = null;
  return (html) => {
    if (html === shown) return;
    shown = html;
    code.innerHTML = html;
    copy.disabled = !html;
    said.textContent = "";
  };
}
