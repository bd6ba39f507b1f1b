/** Tables, and the numbers of a chart as one. */

import { element, region } from "./dom.js";

/** A table with its head row. @returns {{ table: HTMLTableElement, body: HTMLElement, heads: HTMLElement[] }} */
export function headed(columns, { caption = "", className = "numbers" } = {}) {
  const table = element("table", className);
  if (caption) table.append(element("caption", "", caption));
  const heads = columns.map((title) => headCell(title, "col"));
  table.createTHead().insertRow().append(...heads);
  return { table, body: table.createTBody(), heads };
}

/** @param {"col" | "row"} scope  @returns {HTMLTableCellElement} */
export function headCell(text, scope) {
  const cell = element("th", "", text);
  cell.scope = scope;
  return cell;
}

/**
 * The numbers of a chart behind a toggle; filled only while it is open.
 * @param {string} about  names the chart
 * @returns {(rows: () => (string | number)[][]) => void}  call it with every frame; each row begins with its name
 */
export function numbersTable(parent, about, columns) {
  const details = element("details", "chart-table");
  const title = `${about} as a table`;
  const scroll = region(element("div", "scroll"), title);
  const { table, body } = headed(columns);
  scroll.append(table);
  details.append(element("summary", "", title), scroll);
  parent.append(details);

  let rows = () => [];
  const fill = () => {
    if (details.open) body.replaceChildren(...rows().map(rowOf));
  };
  details.addEventListener("toggle", fill);
  return (latest) => {
    rows = latest;
    fill();
  };
}

function rowOf([name, ...values]) {
  const row = element("tr");
  row.append(headCell(String(name), "row"), ...values.map((value) => element("td", "", String(value))));
  return row;
}

/** At most `most` of the frames, evenly chosen, with the first and the last. */
export function thinned(frames, most = 21) {
  if (frames.length <= most) return frames;
  return Array.from({ length: most }, (_, i) => frames[Math.round((i * (frames.length - 1)) / (most - 1))]);
}
