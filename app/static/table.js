/** The numbers of a chart as a table, behind a toggle; filled only while it is open. */

import { element } from "./models.js";

/**
 * @param {string} about  names the chart
 * @returns {(columns: string[], rows: () => (string | number)[][]) => void}  call it with every frame
 */
export function tableToggle(parent, about) {
  const details = element("details", "chart-table");
  details.append(element("summary", "", `${about} as a table`));
  const table = element("table", "numbers");
  const scroll = element("div", "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `${about} as a table`);
  scroll.append(table);
  details.append(scroll);
  parent.append(details);
  let fill = () => {};
  details.addEventListener("toggle", () => fill());
  return (columns, rows) => {
    fill = () => {
      if (!details.open) return;
      const head = element("tr");
      for (const column of columns) {
        const cell = element("th", "", column);
        cell.scope = "col";
        head.append(cell);
      }
      const body = rows().map((values) => {
        const row = element("tr");
        row.append(...values.map((value) => element("td", "", String(value))));
        return row;
      });
      const top = element("thead");
      const rest = element("tbody");
      top.append(head);
      rest.append(...body);
      table.replaceChildren(top, rest);
    };
    fill();
  };
}

/** At most `most` of the frames, evenly chosen, with the first and the last. */
export function thinned(frames, most = 21) {
  if (frames.length <= most) return frames;
  return Array.from({ length: most }, (_, i) => frames[Math.round((i * (frames.length - 1)) / (most - 1))]);
}
