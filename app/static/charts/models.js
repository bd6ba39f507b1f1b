/** The three models: the same names, colours and line styles in every chart, table and legend. */

import { element, svgElement } from "../widgets/dom.js";
import { headed } from "../widgets/table.js";

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

/**
 * A row a model, which is the legend of the charts beside it, too.
 * @param {Object<string, string>} columns  name of a number: its title
 * @returns {(texts: (name: string, model: string) => string) => void}
 */
export function modelsTable(parent, columns) {
  const { table, body } = headed(["Model", ...Object.values(columns)]);
  const cells = MODELS.flatMap(({ key, name, about }) => {
    const row = body.insertRow();
    const head = element("th");
    head.scope = "row";
    head.append(swatch(key), element("span", `name ${key}`, name), element("span", "about", about));
    row.append(head);
    return Object.keys(columns).map((column) => {
      const cell = row.insertCell();
      cell.dataset[column] = key;
      return { column, key, cell };
    });
  });
  parent.append(table);
  return (texts) => {
    for (const { column, key, cell } of cells) cell.textContent = texts(column, key);
  };
}

/** One number a model, in a sentence. */
export function perModel(text) {
  return MODELS.map(({ key, name }) => `${name} ${text(key)}`).join(", ");
}
