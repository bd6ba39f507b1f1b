/** Chapter "Export": the graph of the file, what its bytes are, and its nibbles. */

import { legendList } from "../../static/charts/plot.js";
import { follow } from "../../static/data/follow.js";
import { eachFrame, own } from "../../static/data/recording.js";
import { chapterDone } from "../../static/page/done.js";
import { element, region } from "../../static/widgets/dom.js";
import { grouped, times } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
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

export function mount(view, props, watch) {
  const say = spoken(view);
  const outdated = element("p", "outdated");
  outdated.setAttribute("role", "status");
  const body = element("div", "file");
  view.append(outdated, body);

  let shown = "";
  let label = "";
  const compare = () => {
    const now = own()?.frames.at(-1).label;
    const words = `Picture, bytes and downloads are of ${label}. The page has moved on to ${now}: press Export for its file.`;
    outdated.textContent = label && now && now !== label ? words : "";
  };
  eachFrame(view, compare);
  follow(props, watch, (frame) => {
    say(frame.words, { patient: false, problem: Boolean(frame.problem) });
    body.classList.toggle("busy", Boolean(frame.busy));
    if (!frame.graph || frame.file === shown) return; // the same file with other words
    shown = frame.file;
    label = frame.label;
    compare();
    const facts = element("div", "facts");
    body.replaceChildren(graph(frame.graph), facts);
    facts.append(bytes(frame.sizes));
    new NibbleMap(facts, frame.weights);
    chapterDone("export");
  });
}

function graph(text) {
  const figure = element("figure", "graph");
  const scroll = region(element("div", "scroll"), "The graph of the file");
  scroll.append(pictureOf(text));
  const caption = element("figcaption");
  caption.append(element("span", "plot-title", "The graph"), legendList([["integer", "codes"], ["number", "float32"]], mark));
  figure.append(caption, scroll);
  return figure;
}

function mark(kind) {
  const node = element("span", `mark ${kind}`);
  node.setAttribute("aria-hidden", "true");
  return node;
}

function bytes(sizes) {
  const figure = element("figure", "bytes");
  const caption = element("figcaption");
  const parts = PARTS.filter(([key]) => sizes[key]);
  caption.append(element("span", "plot-title", "The bytes"), legendList([["fp32", "float32"], ...parts], mark));
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
  const over = grouped(sizes.file - sizes.minimum);
  const words = element("p", "quiet", `${times(sizes.fp32, sizes.file)} times smaller than in float32; ${over} bytes above the theoretical minimum.`);
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
