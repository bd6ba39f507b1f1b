/** A few large numbers with their names. */

import { element } from "./dom.js";

/** @returns {(entries: [string, string][]) => void}  shows names and numbers */
export function figures(parent) {
  const list = element("dl", "figures");
  parent.append(list);
  return (entries) =>
    list.replaceChildren(
      ...entries.map(([name, number]) => {
        const cell = element("div");
        cell.append(element("dt", "", name), element("dd", "", number));
        return cell;
      }),
    );
}
