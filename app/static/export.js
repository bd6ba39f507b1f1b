/** Chapter "Export": the graph of the file, what its bytes are, and its nibbles. */

import { follow } from "./follow.js";
import { element } from "./models.js";
import { NibbleMap } from "./nibbles.js";
import { pictureOf } from "./picture.js";

const PARTS = [
  ["codes", "codes"],
  ["scales", "scales"],
  ["zero_points", "zero points"],
  ["others", "biases"],
  ["graph", "graph"],
  ["receipt", "receipt"],
];

export function mount(root, props, watch) {
  const view = root.querySelector(".view");
  const words = element("p", "words");
  words.setAttribute("aria-live", "polite");
  const body = element("div", "file");
  view.replaceChildren(words, body);

  let shown = "";
  follow(props, watch, (frame) => {
    words.textContent = frame.words;
    words.classList.toggle("problem", Boolean(frame.problem));
    body.classList.toggle("busy", Boolean(frame.busy));
    if (!frame.graph || frame.file === shown) return; // the same file with other words
    shown = frame.file;
    const facts = element("div", "facts");
    body.replaceChildren(graph(frame.graph), facts);
    facts.append(bytes(frame.sizes));
    new NibbleMap(facts, frame.weights);
    window.dispatchEvent(new CustomEvent("chapter-done", { detail: "export" }));
  });
}

function graph(text) {
  const figure = element("figure", "graph");
  const scroll = element("div", "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "The graph of the file");
  scroll.append(pictureOf(text));
  const caption = element("figcaption");
  caption.append(element("span", "plot-title", "The graph"), legend([["integer", "codes"], ["number", "float32"]]));
  figure.append(caption, scroll);
  return figure;
}

function legend(entries) {
  const list = element("ul", "legend");
  for (const [kind, name] of entries) {
    const item = element("li");
    const mark = element("span", `mark ${kind}`);
    mark.setAttribute("aria-hidden", "true");
    item.append(mark, name);
    list.append(item);
  }
  return list;
}

function bytes(sizes) {
  const figure = element("figure", "bytes");
  const caption = element("figcaption");
  const parts = PARTS.filter(([key]) => sizes[key]);
  caption.append(element("span", "plot-title", "The bytes"), legend([["fp32", "float32"], ...parts]));
  const bars = element("div", "bars");
  bars.setAttribute("role", "img");
  bars.setAttribute(
    "aria-label",
    `The file takes ${count(sizes.file)} bytes, the same numbers in float32 ${count(sizes.fp32)}; ` +
      `the theoretical minimum is ${count(sizes.minimum)}.`,
  );
  bars.append(
    ...bar("float32", [["fp32", sizes.fp32]], sizes.fp32, sizes),
    ...bar("this file", parts.map(([key]) => [key, sizes[key]]), sizes.file, sizes),
    ...bar("minimum", [["minimum", sizes.minimum]], sizes.minimum, sizes),
  );
  const times = (sizes.fp32 / sizes.file).toPrecision(2);
  const over = count(sizes.file - sizes.minimum);
  const words = element("p", "quiet", `${times} times smaller than in float32; ${over} bytes above the theoretical minimum.`);
  figure.append(caption, bars, words, table(parts, sizes));
  return figure;
}

function bar(name, parts, total, sizes) {
  const line = element("span", "bar");
  const whole = Math.max(sizes.fp32, sizes.file);
  for (const [kind, size] of parts) {
    const part = element("span", `part ${kind}`);
    part.style.width = `${(100 * size) / whole}%`;
    line.append(part);
  }
  return [element("span", "name", name), line, element("span", "total", count(total))];
}

function table(parts, sizes) {
  const details = element("details");
  const table = element("table", "numbers");
  for (const [name, size] of [...parts.map(([key, name]) => [name, sizes[key]]), ["the whole file", sizes.file]]) {
    const row = table.insertRow();
    const head = element("th", "", name);
    head.setAttribute("scope", "row");
    row.append(head, element("td", "", `${count(size)} bytes`), element("td", "", `${((100 * size) / sizes.file).toFixed(1)} %`));
  }
  details.append(element("summary", "", "Table"), table);
  return details;
}

function count(n) {
  return n.toLocaleString("en");
}
