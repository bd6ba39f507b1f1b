/** Chapter "your turn": draw a curve or bring points, and watch three networks learn it. */

import { choice, numbersTable, spoken } from "./controls.js";
import { follow } from "./follow.js";
import { MODELS, element, short, swatch } from "./models.js";
import { Plot } from "./plot.js";

const HEIGHT = 340;
const COLUMNS = 129; // of the curve that is drawn
const MOST_BYTES = 1_000_000;
const BRUSH = 5; // columns that an arrow key lifts, falling off to both sides

const SHAPES = {
  steps: (x) => (Math.floor(2.999 * (x + 1)) % 2 ? -0.6 : 0.6) * (1 - 0.3 * x),
  zigzag: (x) => 1.6 * Math.abs(((1.5 * (x + 1)) % 1) - 0.5) * 2 - 0.8,
  "rising pitch": (x) => 0.8 * Math.sin(2.2 * Math.PI * (x + 1.1) ** 2 / 1.6),
  heartbeat: (x) => 0.9 * bell(x, 0, 0.07) - 0.35 * bell(x, 0.16, 0.06) + 0.25 * bell(x, 0.5, 0.13) + 0.12 * bell(x, -0.4, 0.12) - 0.2,
};

export function mount(root, props, watch, trigger) {
  const view = root.querySelector(".view");
  view.replaceChildren();
  let points = shape("steps");
  let frame = JSON.parse(props.value);
  let isDrawn = true; // a curve on the grid of the pad, not points that were brought

  const status = statusLine(view);
  const sources = element("div", "sources");
  view.append(sources);
  const pad = new Pad(view, (next) => {
    setPoints(next);
    showShape(null); // so that it can be chosen again
  });
  const table = numbers(view);

  const setPoints = (next, drawn = true) => {
    points = next;
    isDrawn = drawn;
    frame = { ...frame, curves: {}, error: {}, problem: "", words: drawn ? "Press Train: three networks learn this curve." : frame.words };
    update();
  };
  const update = () => {
    view.dataset.points = JSON.stringify(points);
    view.dataset.step = frame.step;
    status(frame);
    for (const control of sources.querySelectorAll("input, textarea, button")) control.disabled = Boolean(frame.running);
    pad.show(points, frame.curves, isDrawn && !frame.running);
    pad.describe(points, frame);
    table(frame, points);
  };
  const options = Object.keys(SHAPES).map((name) => [name, name]);
  const choose = (name) => {
    setPoints(shape(name));
    showShape(name);
  };
  const showShape = choice(sources, { label: "Start from", options, value: "steps", set: choose });
  bring(sources, {
    send: (file) => trigger("upload", file),
    refuse: (problem) => {
      frame = { ...frame, problem };
      update();
    },
  });

  follow(props, watch, (next) => {
    frame = next;
    if (frame.points) {
      showShape(null);
      setPoints(frame.points, false);
    } else update();
  });
}

/** The chart that is drawn upon, with a pointer or with the arrow keys. */
class Pad {
  constructor(parent, onDraw) {
    this.plot = new Plot(parent, {
      title: "Your points",
      height: HEIGHT,
      x: { domain: [-1, 1], ticks: [-1, 0, 1], title: "x", format: plain },
      y: { domain: [-1.2, 1.2], ticks: [-1, 0, 1], format: plain },
      legend: [["noisy", "your points"], ...MODELS.map(({ key, name }) => [key, name])],
    });
    this.plot.svg.classList.add("pad");
    this.dots = this.plot.line("noisy");
    this.fits = MODELS.map(({ key }) => ({ key, path: this.plot.line(key) }));
    this.cursor = this.plot.line("cursor");
    this.column = (COLUMNS - 1) / 2;
    this.last = null;
    this.onDraw = onDraw;
    const { svg } = this.plot;
    svg.addEventListener("pointerdown", (event) => this.press(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (this.last = null));
    svg.addEventListener("keydown", (event) => this.key(event));
    for (const change of ["focus", "blur"]) svg.addEventListener(change, () => this.draw());
  }

  show(points, curves, isEditable) {
    Object.assign(this, { points, curves, isEditable });
    const { svg } = this.plot;
    svg.classList.toggle("editable", isEditable);
    svg.setAttribute("role", isEditable ? "slider" : "img");
    if (isEditable) svg.setAttribute("tabindex", "0");
    else svg.removeAttribute("tabindex");
    const [low, high] = extent(points.map(([x]) => x));
    this.reach = [low, high];
    this.plot.setAxis("x", this.isGrid() ? { domain: [-1, 1], ticks: [-1, 0, 1] } : axis(low, high));
    const [bottom, top] = extent(points.map(([, y]) => y));
    const margin = (top - bottom) / 10 || Math.abs(top) / 10 || 1;
    this.plot.setAxis("y", this.isGrid() ? { domain: [-1.2, 1.2], ticks: [-1, 0, 1] } : axis(bottom, top, margin));
    this.plot.show(() => this.draw());
  }

  describe(points, { curves, error, step, steps }) {
    const { svg } = this.plot;
    const fits = curves.qat ? ` Fits after step ${step} of ${steps}, typical error: ${list(error)}.` : "";
    this.plot.describe(this.isEditable ? `Curve of ${points.length} points to draw over; arrow keys move and lift it.${fits}` : `${points.length} points.${fits}`);
    for (const name of ["valuemin", "valuemax", "valuenow", "valuetext"]) {
      if (!this.isEditable) svg.removeAttribute(`aria-${name}`);
    }
    if (!this.isEditable) return;
    const [x, y] = points[this.column];
    setAll(svg, { "aria-valuemin": -1, "aria-valuemax": 1, "aria-valuenow": y.toFixed(2), "aria-valuetext": `at x = ${plain(x.toFixed(2))}, y = ${plain(y.toFixed(2))}` });
  }

  isGrid() {
    return this.points.length === COLUMNS && this.points[0][0] === -1 && this.points.at(-1)[0] === 1;
  }

  draw() {
    const { plot, points } = this;
    if (!points || !plot.width) return;
    this.dots.setAttribute("d", plot.dots(points.map(([x]) => x), points.map(([, y]) => y)));
    const [low, high] = this.reach;
    for (const { key, path } of this.fits) {
      const curve = this.curves[key] ?? [];
      path.setAttribute("d", plot.through(curve.map((_, i) => low + ((high - low) * i) / (curve.length - 1)), curve));
    }
    const [x, y] = points[Math.min(this.column, points.length - 1)];
    const isShown = this.isEditable && document.activeElement === plot.svg;
    this.cursor.setAttribute("d", isShown ? `M${plot.px(x)} ${plot.py(y) - 26}V${plot.py(y) + 26}${plot.dots([x], [y])}` : "");
  }

  press(event) {
    if (!this.isEditable || event.button > 0) return;
    event.preventDefault();
    this.plot.svg.focus({ preventScroll: true });
    this.plot.svg.setPointerCapture(event.pointerId);
    this.last = this.at(event);
    this.paint(this.last);
  }

  move(event) {
    if (!this.last || !this.isEditable) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const step of events.length ? events : [event]) {
      const next = this.at(step);
      this.paint(next);
      this.last = next;
    }
  }

  /** Column and height below the pointer. */
  at({ clientX, clientY }) {
    const box = this.plot.svg.getBoundingClientRect();
    const share = (clientX - box.left - this.plot.px(-1)) / (this.plot.px(1) - this.plot.px(-1));
    const height = (clientY - box.top - this.plot.py(0)) / (this.plot.py(1) - this.plot.py(0));
    return [within(Math.round(share * (COLUMNS - 1)), 0, COLUMNS - 1), within(height, -1, 1)];
  }

  /** The line from where the pointer was to where it is. */
  paint([column, height]) {
    const [from, start] = this.last;
    const points = this.points.slice();
    const [low, high] = extent([from, column]);
    for (let i = low; i <= high; i++) {
      const share = column === from ? 1 : (i - from) / (column - from);
      points[i] = [points[i][0], short4(start + share * (height - start))];
    }
    this.column = column;
    this.onDraw(points);
  }

  key(event) {
    if (!this.isEditable) return;
    const sideways = { ArrowLeft: -2, ArrowRight: 2, PageDown: -16, PageUp: 16, Home: -COLUMNS, End: COLUMNS }[event.key];
    const lift = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
    if (sideways === undefined && lift === undefined) return;
    event.preventDefault();
    if (sideways) this.column = within(this.column + sideways, 0, COLUMNS - 1);
    const points = lift
      ? this.points.map(([x, y], i) => [x, short4(within(y + lift * Math.exp(-(((i - this.column) / BRUSH) ** 2)), -1, 1))])
      : this.points;
    if (lift) this.onDraw(points);
    else {
      this.draw();
      this.describe(this.points, { curves: this.curves, error: {} });
    }
  }
}

function statusLine(parent) {
  const status = element("div", "status");
  const progress = element("div");
  const step = element("span", "step");
  const bar = element("progress");
  bar.setAttribute("aria-label", "Training");
  progress.append(step, bar);
  status.append(progress);
  const say = spoken(status);
  parent.append(status);
  return (frame) => {
    step.textContent = `Step ${grouped(frame.step)} of ${grouped(frame.steps)}`;
    bar.max = frame.steps;
    bar.value = frame.step;
    say(frame.problem || frame.words);
    status.lastChild.classList.toggle("problem", Boolean(frame.problem));
  };
}

/** Points from a file or from the keyboard. */
function bring(parent, { send, refuse }) {
  const box = element("details", "bring");
  box.append(element("summary", "", "Bring your own points"));
  const file = element("input");
  Object.assign(file, { type: "file", id: "your-file", accept: ".csv,.tsv,.txt,text/csv,text/plain" });
  const fileLabel = element("label", "", "A CSV file, two columns: x and y");
  fileLabel.htmlFor = file.id;
  const text = element("textarea");
  Object.assign(text, { id: "your-text", rows: 4, placeholder: "x, y\n0, 1.5\n0.5, 2", spellcheck: false });
  const textLabel = element("label", "", "or type them, a line each");
  textLabel.htmlFor = text.id;
  const use = element("button", "copy", "Use these");
  use.type = "button";
  box.append(fileLabel, file, textLabel, text, use);
  parent.append(box);

  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    if (chosen.size > MOST_BYTES) refuse(`${chosen.name} has ${grouped(chosen.size)} bytes; expected at most ${grouped(MOST_BYTES)}`);
    else send({ name: chosen.name, data: base64(new Uint8Array(await chosen.arrayBuffer())) });
    file.value = "";
  });
  use.addEventListener("click", () => send({ name: "your text", data: base64(new TextEncoder().encode(text.value)) }));
}

function numbers(parent) {
  const table = element("table", "numbers");
  const head = table.createTHead().insertRow();
  for (const title of ["Model", "Typical error, in units of y"]) {
    const cell = element("th", "", title);
    cell.setAttribute("scope", "col");
    head.append(cell);
  }
  const body = table.createTBody();
  const cells = MODELS.map(({ key, name, about }) => {
    const row = body.insertRow();
    const label = element("th");
    label.setAttribute("scope", "row");
    label.append(swatch(key), element("span", `name ${key}`, name), element("span", "about", about));
    const error = element("td");
    error.dataset.error = key;
    row.append(label, error);
    return { key, error };
  });
  parent.append(table);
  const everyNumber = numbersTable(parent, { caption: "The fits", columns: ["x", ...MODELS.map(({ name }) => name)] });
  return (frame, points) => {
    everyNumber(() => fits(points, frame.curves));
    for (const { key, error } of cells) error.textContent = frame.error[key] === undefined ? "–" : short(frame.error[key]);
  };
}

/** Every eighth number of the fitted curves. */
function fits(points, curves) {
  const [low, high] = extent(points.map(([x]) => x));
  const count = curves.qat?.length ?? 0;
  return Array.from({ length: Math.ceil(count / 8) }, (_, i) => {
    const x = low + ((high - low) * 8 * i) / (count - 1);
    return [plain(x), ...MODELS.map(({ key }) => (curves[key][8 * i] === null ? "–" : plain(curves[key][8 * i])))];
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

/** Round numbers as ticks, two to five of them where there is any width. */
function axis(low, high, margin = 0) {
  const domain = [low - margin, high + margin];
  const rough = (domain[1] - domain[0]) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const first = Math.ceil(domain[0] / step);
  const count = Math.floor(domain[1] / step) - first + 1;
  return { domain, ticks: Array.from({ length: Math.max(0, count) }, (_, i) => (first + i) * step) };
}

function extent(values) {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

function within(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

function short4(value) {
  return Math.round(value * 1e4) / 1e4;
}

function plain(value) {
  return String(Number(Number(value).toPrecision(4))).replace("-", "−");
}

function list(values) {
  return MODELS.map(({ key, name }) => `${name} ${short(values[key] ?? 0)}`).join(", ");
}

function grouped(count) {
  return count.toLocaleString("en");
}

function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

function setAll(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
}
