/** Chapter "one step": pick a weight, then follow it through one optimizer step, a stage at a time. */

import { Heatmap } from "../../static/charts/heatmap.js";
import { SETTINGS, when } from "../../static/data/events.js";
import { follow } from "../../static/data/follow.js";
import { eachFrame } from "../../static/data/recording.js";
import { settings } from "../../static/page/address.js";
import { chapterDone } from "../../static/page/done.js";
import { button, element } from "../../static/widgets/dom.js";
import { grouped, readable } from "../../static/widgets/format.js";
import { numbersTable } from "../../static/widgets/table.js";
import { Numbers } from "./numbers.js";
import { PATIENCE, Questions } from "./questions.js";
import { originOf, stagesOf, valuesOf } from "./stages.js";
import { Pictures } from "./step_pictures.js";

const PICKS = [
  ["gradient", "Largest gradient"],
  ["flip", "About to flip"],
  ["clamped", "Clamped hardest"],
];
const STRIDES = [1, 25, 100];
const PASSES = { forward: "forward", backward: "backward", update: "update" };

export function mount(root, props, watch, trigger) {
  const view = root.querySelector(".view");
  view.replaceChildren();
  const sources = JSON.parse(props.sources);
  let frame = null;
  let at = 0;

  const send = (event, about) => {
    const { layer, row, col, matrix } = frame;
    trigger(event, { layer, row, col, has: matrix, ...about });
  };
  const questions = new Questions(send, (isWaiting) => view.setAttribute("aria-busy", String(isWaiting)));
  const ask = (cell) => questions.ask("select", cell);
  const take = (steps) => questions.ask("submit", { steps });
  const turnTo = (stage) => {
    at = Math.max(0, Math.min(stagesOf(frame).length - 1, stage));
    draw();
  };

  const strip = steps(view, take);
  const bench = element("div", "bench");
  const way = element("div", "way");
  bench.append(way);
  view.append(bench);
  const look = (cell) => questions.soon(cell);
  const parts = [strip.draw, loop(way, turnTo), card(way, sources, turnTo, take), tables(way), matrix(bench, ask, look)];

  const draw = () => {
    const stages = stagesOf(frame);
    at = Math.min(at, stages.length - 1);
    view.dataset.step = frame.step;
    view.dataset.stage = stages[at].key;
    if (at === stages.length - 1) chapterDone("one_step");
    for (const part of parts) part(frame, stages, at);
  };
  const takeIn = (latest) => {
    if (latest.busy) {
      setTimeout(() => ask({}), 2 * PATIENCE);
      return;
    }
    strip.complain(latest.problem);
    if (latest.problem) return;
    const key = frame && stagesOf(frame)[at].key;
    frame = { codes: frame?.codes, flips: frame?.flips, ...latest }; // a matrix that is here is not sent again
    if (key) at = Math.max(0, stagesOf(frame).findIndex((stage) => stage.key === key));
    draw();
  };
  follow(props, watch, (latest) => {
    if (questions.isWorthDrawing(latest.asked)) takeIn(latest);
    questions.next();
  });
  keepUpToDate(view, () => look({}), () => questions.hold());
  eachFrame(root, () => questions.release());
}

/** The training may have moved on, or begun anew, while this chapter was out of sight or the settings changed. */
function keepUpToDate(view, ask, hold) {
  let seen = true; // what was drawn first is up to date
  let known = String(Object.values(settings())); // those of the network that was drawn first
  new ResizeObserver(([{ contentRect }]) => {
    const visible = contentRect.width > 0;
    if (visible && !seen) ask();
    seen = visible;
  }).observe(view);
  when(SETTINGS, (values) => {
    const isOther = String(values) !== known;
    known = String(values);
    if (seen && isOther) hold();
    if (seen) ask();
  });
  ask();
}

// Each part builds its nodes once and returns the function that updates them.

/** How far the training is, and the buttons that move it on. */
function steps(parent, take) {
  const strip = element("div", "strip");
  const count = element("p", "step");
  const buttons = STRIDES.map((stride) => button(stride === 1 ? "Take 1 step" : `${stride} steps`, () => take(stride)));
  const words = element("p", "problem");
  words.setAttribute("role", "status");
  strip.append(count, ...buttons, words);
  parent.append(strip);
  return {
    complain: (problem) => (words.textContent = problem),
    draw: (frame) => {
      const over = frame.step >= frame.steps;
      count.textContent = over
        ? `All ${grouped(frame.steps)} steps are taken. One more, seen from inside: the learning rate is 0`
        : `Step ${grouped(frame.step + 1)} of ${grouped(frame.steps)}, seen from inside`;
      for (const node of buttons) node.disabled = over;
    },
  };
}

/** The numbers on their way: forward to the loss, and back to the weight. */
function loop(parent, turnTo) {
  const nav = element("nav", "loop");
  nav.setAttribute("aria-label", "Stages of the step");
  parent.append(nav);
  let chips = [];
  let built = "";

  const build = (stages) => {
    built = String(stages.map(({ key }) => key));
    const rows = [element("ol", "out"), element("ol", "back")];
    chips = stages.map((stage, i) => {
      const item = element("li", stage.pass);
      const first = stages[i - 1]?.pass !== stage.pass;
      item.append(element("span", "pass", first ? PASSES[stage.pass] : ""));
      const chip = button("", () => turnTo(i));
      chip.append(element("span", "chip", stage.chip), element("span", "value"));
      item.append(chip);
      rows[stage.pass === "forward" ? 0 : 1].append(item);
      return chip;
    });
    nav.replaceChildren(...rows);
  };
  nav.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const from = chips.indexOf(document.activeElement);
    if (!move || from < 0) return;
    event.preventDefault();
    const to = chips[Math.max(0, Math.min(chips.length - 1, from + move))];
    to.focus();
    to.click();
  });

  return (frame, stages, at) => {
    if (built !== String(stages.map(({ key }) => key))) build(stages);
    stages.forEach((stage, i) => {
      const chip = chips[i];
      const reached = i <= at;
      chip.tabIndex = i === at ? 0 : -1;
      if (i === at) chip.setAttribute("aria-current", "step");
      else chip.removeAttribute("aria-current");
      chip.classList.toggle("ahead", !reached);
      chip.lastChild.textContent = reached ? brief(frame.numbers[stage.value]) : "·";
      chip.setAttribute("aria-label", `${stage.title}${reached ? `: ${readable(frame.numbers[stage.value])}` : ""}`);
    });
  };
}

/** One stage: its formula with the real numbers, its picture, and the lines of source that do it. */
function card(parent, sources, turnTo, take) {
  const section = element("section", "stage");
  const title = element("h3");
  const formula = element("div", "formula");
  const words = element("p", "words");
  const told = element("div", "told");
  told.append(title, formula, words);
  const spoken = element("p", "spoken");
  spoken.setAttribute("aria-live", "polite");
  const shown = element("div", "shown");
  const pictures = new Pictures(shown);
  const source = element("figure", "source listing");
  const turns = element("div", "turns");
  const back = button("Back", () => turnTo(now - 1));
  const next = button("Next", () => (now < last ? turnTo(now + 1) : (turnTo(0), take(1))), "primary");
  turns.append(back, next);
  section.append(turns, told, shown, source, spoken);
  parent.append(section);
  const numbers = new Numbers(section);
  let now = 0;
  let last = 0;

  return (frame, stages, at) => {
    const stage = stages[at];
    [now, last] = [at, stages.length - 1];
    const values = valuesOf(frame);
    const line = (text) => numbers.text(text, values, (name) => originOf(name, frame));
    numbers.hide();
    title.textContent = `${at + 1}. ${stage.title}`;
    formula.replaceChildren(...stage.formula.map(line));
    formula.classList.toggle("lines", formula.childElementCount > 1);
    words.replaceChildren(line(stage.words));
    spoken.textContent = `Stage ${at + 1} of ${stages.length}, ${title.textContent}: ${readable(values[stage.value])}`;
    pictures.show(stage, frame, values);
    listing(source, sources[`${stage.key}.${frame.rule}`] ?? sources[stage.key]);
    back.disabled = at === 0;
    next.textContent = at < last ? "Next" : "Take the step";
    next.disabled = at === last && frame.step >= frame.steps;
  };
}

/** Everything at once, for those who read rather than look. */
function tables(parent) {
  const box = element("div");
  parent.append(box);
  const numbers = numbersTable(box, "All numbers of the step", ["Value", "Where it comes from"]);
  const columns = ["x", "Output", "Without the weight", "Prediction", "Data", "Part of the gradient"];
  const curves = numbersTable(box, "The curves of the step", columns);
  return (frame) => {
    const values = Object.entries(valuesOf(frame)).filter(([name]) => originOf(name, frame));
    numbers(() => values.map(([name, value]) => [readable(value), originOf(name, frame)]));
    const { x, y, rest, prediction, target, parts } = frame.curves;
    curves(() => x.map((_, i) => [x, y, rest, prediction, target, parts].map((column) => readable(column[i]))));
  };
}

/** Our own code, coloured on the server. */
function listing(figure, { file, name, lines }) {
  const code = element("pre");
  code.tabIndex = 0;
  code.setAttribute("role", "region");
  code.setAttribute("aria-label", `${file}: ${name}`);
  for (const [number, html, marked] of lines) {
    const line = element(marked ? "mark" : "span", "code-line");
    line.dataset.number = number || "";
    line.innerHTML = html;
    code.append(line);
  }
  figure.replaceChildren(element("figcaption", "", `${file}: ${name}`), code);
}

/** The layer's codes, in which a weight is picked. */
function matrix(parent, ask, look) {
  const side = element("section", "matrix");
  const layers = element("div", "which-layer segments");
  layers.setAttribute("role", "group");
  layers.setAttribute("aria-label", "Layer");
  side.append(element("h3", "", "The weight"), layers);
  let frame = null;
  const heatmap = new Heatmap(side, "Codes of the layer", (row, col) => {
    heatmap.select(row, col, words(frame, row, col));
    caption.textContent = words(frame, row, col);
    look({ row, col });
  });
  const caption = element("p", "caption");
  caption.setAttribute("aria-live", "polite");
  const picks = element("div", "picks");
  const pickers = PICKS.map(([key, name]) => [key, button(name, () => ask({ row: frame.picks[key][0], col: frame.picks[key][1] }))]);
  picks.append(...pickers.map(([, node]) => node));
  const scale = element("p", "code-scale quiet");
  const counts = element("p", "quiet");
  side.append(caption, scale, picks, counts);
  parent.append(side);

  return (latest) => {
    frame = latest;
    const codes = codesOf(frame);
    const bits = atob(frame.flips);
    const reach = frame.numbers.quant_max;
    heatmap.show({ rows: frame.rows, cols: frame.cols, codes, reach, marks: (i) => ((bits.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1 ? "■" : "") });
    heatmap.select(frame.row, frame.col, words(frame, frame.row, frame.col));
    caption.textContent = words(frame, frame.row, frame.col);
    scale.replaceChildren(`code ${readable(frame.numbers.quant_min)}`, element("span", "ramp"), `${frame.numbers.quant_max}`);
    counts.textContent =
      `■ ${grouped(frame.flipped)} of ${grouped(frame.rows * frame.cols)} codes flip in this step. ` +
      (frame.clamped ? `${grouped(frame.clamped)} are clamped.` : "None is clamped: the scale covers them all.");
    for (const [key, node] of pickers) node.disabled = !frame.picks[key];
    layers.replaceChildren(
      ...Object.entries(frame.layers).map(([key, [inputs, outputs]]) => {
        const node = button(`${inputs} → ${outputs}`, () => ask({ layer: key, row: null, col: null }));
        node.setAttribute("aria-pressed", String(key === frame.layer));
        return node;
      }),
    );
  };
}

function words(frame, row, col) {
  return `Row ${row}, column ${col}: code ${readable(codesOf(frame)[row * frame.cols + col])}.`;
}

/** The codes of the layer: two to a byte, the low nibble first, where they have at most four bits. */
function codesOf({ codes, bits, rows, cols }) {
  const bytes = Uint8Array.from(atob(codes), (c) => c.charCodeAt(0));
  if (bits > 4) return Int8Array.from(bytes);
  return Int8Array.from({ length: rows * cols }, (_, i) => (bytes[i >> 1] << (i & 1 ? 24 : 28)) >> 28);
}

/** Three digits for the loop. */
function brief(value) {
  if (Number.isInteger(value)) return readable(value);
  const size = Math.abs(value);
  return (size >= 1e-3 && size < 1e4 ? value.toPrecision(3) : value.toExponential(1)).replaceAll("-", "−");
}
