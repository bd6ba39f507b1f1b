/** The page's elements, in as few words as can be. */

/** @returns {HTMLElement} */
export function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** @returns {SVGElement} */
export function svgElement(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAll(node, attributes);
  return node;
}

export function setAll(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}

/** What scrolls is reached with the keyboard, and has a name. */
export function region(node, label) {
  node.tabIndex = 0;
  setAll(node, { role: "region", "aria-label": label });
  return node;
}

/** @param {() => void} act @returns {HTMLButtonElement} */
export function button(text, act, className = "") {
  const node = element("button", className, text);
  node.type = "button";
  node.addEventListener("click", act);
  return node;
}
