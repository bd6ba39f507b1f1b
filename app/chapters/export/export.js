/** Chapter "Export": the graph of the file, what its bytes are, and its nibbles. */

import { follow } from "../../static/data/follow.js";
import { chapterDone } from "../../static/page/done.js";
import { element } from "../../static/widgets/dom.js";
import { grouped } from "../../static/widgets/format.js";
import { numbersTable } from "../../static/widgets/table.js";
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
    chapterDone("export");
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
    `The file takes ${grouped(sizes.file)} bytes, the same numbers in float32 ${grouped(sizes.fp32)}; ` +
      `the theoretical minimum is ${grouped(sizes.minimum)}.`,
  );
  bars.append(
    ...bar("float32", [["fp32", sizes.fp32]], sizes.fp32, sizes),
    ...bar("this file", parts.map(([key]) => [key, sizes[key]]), sizes.file, sizes),
    ...bar("minimum", [["minimum", sizes.minimum]], sizes.minimum, sizes),
  );
  const times = (sizes.fp32 / sizes.file).toPrecision(2);
  const over = grouped(sizes.file - sizes.minimum);
  const words = element("p", "quiet", `${times} times smaller than in float32; ${over} bytes above the theoretical minimum.`);
  figure.append(caption, bars, words);
  table(figure, parts, sizes);
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
  return [element("span", "name", name), line, element("span", "total", grouped(total))];
}

function table(parent, parts, sizes) {
  const rows = [...parts.map(([key, name]) => [name, sizes[key]]), ["the whole file", sizes.file]];
  const share = (size) => `${((100 * size) / sizes.file).toFixed(1)}%`;
  numbersTable(parent, "The bytes", ["Part", "Bytes", "Share"])(() =>
    rows.map(([name, size]) => [name, grouped(size), share(size)]),
  );
}
