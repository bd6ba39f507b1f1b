/** Chapter "ptq": guess what rounding does to the curve, see it, then see which roundings the network survives. */

import { FitPlot, sine } from "../../static/charts/fit_plot.js";
import { heightInView } from "../../static/charts/plot.js";
import { eachFrame, own } from "../../static/data/recording.js";
import { chapterDone } from "../../static/page/done.js";
import { button, element, svgElement } from "../../static/widgets/dom.js";
import { grouped, percent, short } from "../../static/widgets/format.js";
import { numbersTable } from "../../static/widgets/table.js";
import { GUESSES, drawInto, score } from "./sketch.js";

const ASKED = { bits: 4, granularity: "per_tensor", scale: "minmax" };
const GRIDS = [
  ["per_tensor", "minmax", "per tensor", "min-max"],
  ["per_tensor", "mse", "per tensor", "MSE"],
  ["per_channel", "minmax", "per channel", "min-max"],
  ["per_channel", "mse", "per channel", "MSE"],
];
const TRAINED = 200; // steps after which there is something to ruin

export function mount(view, props, watch) {
  const words = element("p", "words");
  words.setAttribute("aria-live", "polite");
  view.append(words);

  let truth = null; // what the server rounded
  let guess = null;
  let chosen = ASKED;

  const plot = new FitPlot(view, {
    title: "What will 4 bits make of it?",
    height: heightInView(),
    fits: ["fp32", "sketch", "ptq"],
    legend: [["fp32", "FP32"], ["sketch", "your guess"], ["ptq", "PTQ"]],
  });
  const title = plot.svg.parentNode.querySelector(".plot-title");
  const guesses = choices(view, "Or choose a guess", GUESSES.map(({ name }) => name), (i) => {
    const curve = shownCurve();
    if (curve) guess = GUESSES[i].guess(curve.map((y) => y ?? 0));
    draw();
  });
  drawInto(plot, (ys) => {
    guess = ys;
    guesses.clear();
    draw();
  });
  const explore = element("div", "explore");
  view.append(explore);
  const bits = bitsSlider(explore, (value) => choose({ ...chosen, bits: value }));
  const multiples = smallMultiples(explore, choose);
  const table = numbersTable(explore, "All 16 roundings", ["Bits", "One scale", "Scale from", "Error", "Weights at 0"]);

  function choose(cell) {
    chosen = cell;
    draw();
  }

  function shownCurve() {
    return truth?.curve ?? own()?.frames.at(-1).curves.fp32;
  }

  function draw() {
    const run = own();
    if (!run) return;
    const now = run.frames.at(-1);
    const isUntrained = now.step < Math.min(TRAINED, now.steps);
    const hasMovedOn = truth && (truth.key !== now.key || truth.step !== now.step);
    if (hasMovedOn && now.running) truth = null; // a network in training has no fixed truth
    document.getElementById("page-ptq").dataset.stage = isUntrained && !truth ? "untrained" : truth ? "seen" : "guess";
    view.dataset.step = now.step;
    view.dataset.running = now.running;
    explore.hidden = !truth;
    guesses.node.hidden = Boolean(truth) || isUntrained;
    plot.svg.classList.toggle("drawable", !truth && !isUntrained);

    const cell = truth?.cells.find((c) => c.bits === chosen.bits && c.granularity === chosen.granularity && c.scale === chosen.scale);
    const isAsked = cell && cell.bits === ASKED.bits && cell.granularity === ASKED.granularity && cell.scale === ASKED.scale;
    const fp32 = shownCurve();
    const showsGuess = guess && (!truth || isAsked);
    plot.show(() =>
      plot.drawData({ noisy: run.noisy, clean: sine() }, { fp32, ptq: cell?.curve, sketch: showsGuess ? guess : [] }),
    );
    title.textContent = cell
      ? `Rounded to ${cell.bits} bits, ${named(cell)}`
      : "What will 4 bits make of it?";
    words.textContent = say(now, isUntrained, cell, isAsked, hasMovedOn, fp32);
    plot.describe(
      `Noisy points of a sine, the fit of the FP32 network at step ${now.step}` +
        (showsGuess ? ", your guess" : "") +
        (cell ? `, and the network rounded to ${cell.bits} bits ${named(cell)}: error ${short(cell.error)}.` : "."),
    );
    if (!truth) return;
    bits(chosen.bits);
    multiples(truth, chosen);
    table(() => truth.cells.map((c) => [c.bits, ...named(c).split(", "), short(c.error), percent(c.zeros)]));
  }

  function say(now, isUntrained, cell, isAsked, hasMovedOn, fp32) {
    if (now.problem) return now.problem;
    if (now.running) return `Training: step ${grouped(now.step)} of ${grouped(now.steps)}.`;
    if (truth && hasMovedOn) {
      return `The network has moved on since (step ${grouped(now.step)}). Round it again to see the one of now.`;
    }
    if (cell) {
      const verdict = isAsked && guess ? score(guess, cell.curve, fp32) : "";
      return `${verdict} ${cell.words}`.trim();
    }
    if (isUntrained) {
      return `Your network is at step ${grouped(now.step)}: it has learned too little for rounding to ruin. Train it first.`;
    }
    if (guess) return "That is your guess. Change it as often as you like, then look.";
    return (
      "Every weight goes to the nearest of 15 values, one scale for each layer. What becomes of the curve? " +
      "Draw it into the chart."
    );
  }

  const take = () => {
    const frame = JSON.parse(props.value || "{}");
    if (frame.problem) words.textContent = frame.problem;
    else if (frame.cells) {
      truth = frame;
      chosen = ASKED;
      chapterDone("ptq");
      draw();
    }
  };
  eachFrame(view, draw);
  watch("value", take);
  take();
}

/** One of several, by radio buttons. */
function choices(parent, legend, names, picked) {
  const node = element("fieldset", "guesses");
  node.append(element("legend", "", legend));
  const inputs = names.map((name, i) => {
    const label = element("label");
    const input = element("input");
    Object.assign(input, { type: "radio", name: "guess" });
    input.addEventListener("change", () => picked(i));
    label.append(input, name);
    node.append(label);
    return input;
  });
  parent.append(node);
  return { node, clear: () => inputs.forEach((input) => (input.checked = false)) };
}

/** 8, 4, 3 or 2 bits. */
function bitsSlider(parent, picked) {
  const WIDTHS = [8, 4, 3, 2];
  const label = element("label", "bits-slider");
  const input = element("input");
  const value = element("span");
  Object.assign(input, { type: "range", min: 0, max: WIDTHS.length - 1, step: 1, id: "ptq-bits" });
  label.append("Bits", input, value);
  parent.append(label);
  input.addEventListener("input", () => picked(WIDTHS[Number(input.value)]));
  return (bits) => {
    input.value = WIDTHS.indexOf(bits);
    input.setAttribute("aria-valuetext", `${bits} bits`);
    value.textContent = `${bits} bits: at most ${2 ** bits} levels`;
  };
}

/** Sixteen small charts, bits by grid; each is a button that shows its rounding in the large one. */
function smallMultiples(parent, picked) {
  const WIDTH = 100;
  const HEIGHT = 44;
  const grid = element("div", "multiples");
  grid.setAttribute("role", "group");
  grid.setAttribute("aria-label", "Which rounding to show");
  grid.append(element("span"));
  for (const [, , granularity, scale] of GRIDS) {
    const head = element("span", "quiet", granularity);
    head.append(element("br"), scale);
    grid.append(head);
  }
  const buttons = [8, 4, 3, 2].flatMap((bits) => {
    grid.append(element("span", "quiet", `${bits} bits`));
    return GRIDS.map(([granularity, scale]) => {
      const node = button("", () => picked({ bits, granularity, scale }), "multiple");
      const svg = svgElement("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
      const under = svgElement("path", { class: "line clean" });
      const path = svgElement("path", { class: "line ptq-small" });
      const error = element("span", "error");
      svg.append(under, path);
      node.append(svg, error);
      grid.append(node);
      return { bits, granularity, scale, node, under, path, error };
    });
  });
  parent.append(grid);
  const line = (ys) =>
    ys
      .map((y, i) => {
        const up = Math.max(-2.2, Math.min(2.2, y ?? 0));
        return `${i ? "L" : "M"}${((WIDTH * i) / (ys.length - 1)).toFixed(1)} ${(HEIGHT * (0.5 - up / 4.4)).toFixed(1)}`;
      })
      .join("");
  return (truth, chosen) => {
    for (const { bits, granularity, scale, node, under, path, error } of buttons) {
      const cell = truth.cells.find((c) => c.bits === bits && c.granularity === granularity && c.scale === scale);
      under.setAttribute("d", line(truth.curve));
      path.setAttribute("d", line(cell.curve));
      error.textContent = short(cell.error);
      const isChosen = bits === chosen.bits && granularity === chosen.granularity && scale === chosen.scale;
      node.setAttribute("aria-pressed", String(isChosen));
      node.setAttribute("aria-label", `${bits} bits, ${named(cell)}: error ${short(cell.error)}`);
    }
  };
}

function named({ granularity, scale }) {
  const [, , one, from] = GRIDS.find(([g, s]) => g === granularity && s === scale);
  return `${one}, ${from}`;
}
