/** The three models: the same names, colours and line styles in every chart, table and legend. */

export const MODELS = [
  { key: "fp32", name: "FP32", about: "trained in 32-bit floats" },
  { key: "ptq", name: "PTQ", about: "FP32, rounded afterwards" },
  { key: "qat", name: "QAT", about: "trained while rounded" },
];

/** A short piece of a model's line, for legends. The class decides colour, width and dashes. */
export function swatch(kind) {
  const svg = svgElement("svg", { class: "swatch", width: 30, height: 10, "aria-hidden": "true" });
  svg.append(svgElement("path", { class: `line ${kind}`, d: "M2 5H28" }));
  return svg;
}

/** @returns {SVGElement} */
export function svgElement(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** @returns {HTMLElement} */
export function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** Two digits are enough to compare. */
export function short(value) {
  if (value >= 100) return Math.round(value).toLocaleString("en");
  return value >= 1e-6 || value === 0 ? value.toPrecision(2) : value.toExponential(1);
}
