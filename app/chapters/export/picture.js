/** Pictures that the server draws, put into the page element by element: names in a file may be anything. */

import { svgElement } from "../../static/widgets/dom.js";

const TAGS = new Set(["svg", "title", "desc", "rect", "g", "text", "path", "polygon"]);
const ATTRIBUTES = new Set([
  ...["class", "role", "width", "height", "viewBox", "transform", "x", "y", "rx", "d", "points"],
  ...["text-anchor", "fill-opacity"],
]);

/** @param {string} text  SVG  @returns {SVGElement} with known elements and attributes only */
export function pictureOf(text) {
  return copyOf(new DOMParser().parseFromString(text, "image/svg+xml").documentElement);
}

function copyOf(node) {
  const attributes = [...node.attributes].filter(({ name }) => ATTRIBUTES.has(name));
  const copy = svgElement(node.localName, Object.fromEntries(attributes.map(({ name, value }) => [name, value])));
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) copy.append(child.data);
    else if (TAGS.has(child.localName)) copy.append(copyOf(child));
  }
  return copy;
}
