/** Chapter "your turn": draw a curve or bring points, and watch three networks learn it. */

import { MODELS, modelsTable } from "../../static/charts/models.js";
import { follow } from "../../static/data/follow.js";
import { choice } from "../../static/widgets/controls.js";
import { element } from "../../static/widgets/dom.js";
import { grouped, short, shortest } from "../../static/widgets/format.js";
import { statusLine } from "../../static/widgets/status.js";
import { numbersTable } from "../../static/widgets/table.js";
import { COLUMNS, Pad, extent, short4 } from "./pad.js";

const MOST_BYTES = 1_000_000;

const SHAPES = {
  steps: (x) => (Math.floor(2.999 * (x + 1)) % 2 ? -0.6 : 0.6) * (1 - 0.3 * x),
  zigzag: (x) => 1.6 * Math.abs(((1.5 * (x + 1)) % 1) - 0.5) * 2 - 0.8,
  "rising pitch": (x) => 0.8 * Math.sin(2.2 * Math.PI * (x + 1.1) ** 2 / 1.6),
  heartbeat: (x) => 0.9 * bell(x, 0, 0.07) - 0.35 * bell(x, 0.16, 0.06) + 0.25 * bell(x, 0.5, 0.13) + 0.12 * bell(x, -0.4, 0.12) - 0.2,
};

export function mount(view, props, watch, trigger) {
  let points = shape("steps");
  let name = "steps"; // of the points, and so of a file
  let file = null; // that Download gives, and the network that it is of
  let frame = JSON.parse(props.value);
  let brought = "yours"; // what the points that are read will be called
  let isDrawn = true; // a curve on the grid of the pad, not points that were brought

  const status = statusLine(view);
  const outdated = element("p", "outdated");
  outdated.setAttribute("role", "status");
  view.append(outdated);
  const pad = new Pad(view, (next) => {
    setPoints(next, "drawn");
    showShape(null); // so that it can be chosen again
  });
  const sources = element("div", "sources");
  view.append(sources);
  const table = numbers(view);

  const setPoints = (next, called, drawn = true) => {
    points = next;
    name = called;
    isDrawn = drawn;
    frame = { ...frame, of: "", file: "", step: 0, curves: {}, error: {}, problem: "", words: drawn ? "Press Train: three networks learn this curve." : frame.words };
    update();
  };
  const update = () => {
    view.dataset.points = JSON.stringify({ name, points });
    view.dataset.step = frame.step;
    view.dataset.running = frame.running;
    status(frame, frame.words);
    if (frame.file) file = { name: frame.file, of: frame.of };
    outdated.textContent = file && file.of !== frame.of ? `Download gives ${file.name}, and the page has moved on: press Export for its file.` : "";
    for (const control of sources.querySelectorAll("input, textarea, button")) control.disabled = Boolean(frame.running);
    pad.show(points, frame.curves, isDrawn && !frame.running);
    pad.describe(points, frame);
    table(frame, points);
  };
  const options = Object.keys(SHAPES).map((name) => [name, name]);
  const choose = (shown) => {
    setPoints(shape(shown), shown);
    showShape(shown);
  };
  const showShape = choice(sources, { label: "Start from", options, value: "steps", set: choose });
  bring(sources, {
    send: (sent) => {
      brought = sent.name.replace(/\.[^.]*$/, "");
      trigger("upload", sent);
    },
    refuse: (problem) => {
      frame = { ...frame, problem };
      update();
    },
  });

  follow(props, watch, (next) => {
    frame = next;
    if (frame.points) {
      showShape(null);
      setPoints(frame.points, brought, false);
    } else update();
  });
}

/** Points from a file or from the keyboard. */
function bring(parent, { send, refuse }) {
  const box = element("details", "bring");
  box.append(element("summary", "", "Bring your own points"));
  const file = element("input");
  Object.assign(file, { type: "file", id: "your-file", accept: ".csv,.tsv,.txt,text/csv,text/plain" });
  const fileLabel = element("label", "", "A CSV file with the columns x and y");
  fileLabel.htmlFor = file.id;
  const text = element("textarea");
  Object.assign(text, { id: "your-text", rows: 4, placeholder: "x, y\n0, 1.5\n0.5, 2", spellcheck: false });
  const textLabel = element("label", "", "or type them, a line each");
  textLabel.htmlFor = text.id;
  const columns = element("input");
  Object.assign(columns, { id: "your-columns", placeholder: "the first two of numbers", spellcheck: false });
  const columnsLabel = element("label", "", "Where there are more columns: the names or numbers of x and y, with a comma between");
  columnsLabel.htmlFor = columns.id;
  const use = element("button", "copy", "Use these");
  use.type = "button";
  box.append(columnsLabel, columns, fileLabel, file, textLabel, text, use);
  parent.append(box);

  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    if (chosen.size > MOST_BYTES) refuse(`${chosen.name} has ${grouped(chosen.size)} bytes; expected at most ${grouped(MOST_BYTES)}`);
    else send({ name: chosen.name, columns: columns.value, data: base64(new Uint8Array(await chosen.arrayBuffer())) });
    file.value = "";
  });
  use.addEventListener("click", () => send({ name: "your text", columns: columns.value, data: base64(new TextEncoder().encode(text.value)) }));
}

function numbers(parent) {
  const show = modelsTable(parent, { error: "Typical error, in units of y" });
  const everyNumber = numbersTable(parent, "The fits", ["x", ...MODELS.map(({ name }) => name)]);
  return (frame, points) => {
    everyNumber(() => fits(points, frame.curves));
    show((_, key) => (frame.error[key] === undefined ? "–" : short(frame.error[key])));
  };
}

/** Every eighth number of the fitted curves. */
function fits(points, curves) {
  const [low, high] = extent(points.map(([x]) => x));
  const count = curves.qat?.length ?? 0;
  return Array.from({ length: Math.ceil(count / 8) }, (_, i) => {
    const x = low + ((high - low) * 8 * i) / (count - 1);
    return [shortest(x), ...MODELS.map(({ key }) => (curves[key][8 * i] === null ? "–" : shortest(curves[key][8 * i])))];
  });
}

function shape(name) {
  return Array.from({ length: COLUMNS }, (_, i) => {
    const x = -1 + (2 * i) / (COLUMNS - 1);
    return [x, short4(SHAPES[name](x))];
  });
}

function bell(x, at, width) {
  return Math.exp(-(((x - at) / width) ** 2));
}

function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}
