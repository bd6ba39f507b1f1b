/** Chapter "qat": three fits, their losses, the weights on their grid, and which codes are restless. */

import { FitPlot, sine } from "../../static/charts/fit_plot.js";
import { LossPlot } from "../../static/charts/loss_plot.js";
import { MODELS, modelsTable, perModel } from "../../static/charts/models.js";
import { heightInView } from "../../static/charts/plot.js";
import { eachFrame, last } from "../../static/data/recording.js";
import { chapterDone } from "../../static/page/done.js";
import { element } from "../../static/widgets/dom.js";
import { grouped, percent, short } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { statusLine } from "../../static/widgets/status.js";
import { numbersTable, thinned } from "../../static/widgets/table.js";
import { FlipMap, classes } from "./flip_map.js";
import { Scrubber } from "./scrubber.js";
import { StairsPlot } from "./stairs_plot.js";

const KEYS = MODELS.map(({ key }) => key);
const LEGEND = MODELS.map(({ key, name }) => [key, name]);
const HEIGHT = 300;

export function mount(view) {
  const status = statusLine(view);
  const charts = element("div", "charts");
  const below = element("div", "charts even");
  const parts = [fitChart(charts), lossChart(charts)];
  const drawNow = () => draw();
  view.append(charts);
  const scrubber = new Scrubber(view, drawNow);
  parts.push(numbers(view));
  view.append(below);
  parts.push(stairs(below), flips(below), diagnosis(view), tables(view));

  const draw = () => {
    const run = last();
    if (!run) return;
    const newest = run.frames.at(-1);
    view.dataset.step = newest.step;
    view.dataset.label = newest.label;
    view.dataset.preset = newest.preset;
    view.dataset.running = newest.running;
    if (newest.step === newest.steps) chapterDone("qat");
    const shown = scrubber.choose(run.frames);
    view.dataset.shown = shown.step;
    status(newest, shown.words.qat);
    for (const update of parts) update(shown, run);
  };
  eachFrame(view, draw);
}

// Each part of the view builds its nodes once and returns the function that updates them.

function fitChart(parent) {
  const plot = new FitPlot(parent, { title: "The fit", height: heightInView(), fits: KEYS, legend: LEGEND });
  return (frame, { noisy }) => {
    plot.show(() => plot.drawData({ noisy, clean: sine() }, frame.curves));
    plot.describe(
      `Noisy points of a sine and three fits after step ${frame.step} of ${frame.steps}. ` +
        `Mean squared error against the sine: ${perModel((key) => short(frame.error[key]))}.`,
    );
  };
}

function lossChart(parent) {
  const series = LEGEND.map(([key, name]) => [key, name, ({ loss }) => loss[key]]);
  const plot = new LossPlot(parent, { title: "Training loss, log scale", height: heightInView(), series });
  return (frame, { frames }) => {
    plot.show(() => plot.drawRun(frames, frame));
    plot.describe(`Training loss after step ${frame.step}: ${perModel((key) => short(frame.loss[key]))}.`);
  };
}

function stairs(parent) {
  const plot = new StairsPlot(parent, { title: "The hidden layer's weights on their grid", height: HEIGHT });
  return ({ step, grid }) => {
    plot.show(() => plot.drawGrid(grid));
    plot.describe(
      `Latent weights of the hidden layer and the codes they round to, after step ${step}: ` +
        `${grid.codes_used} of ${levels(grid)} codes in use, ${percent(grid.zeros)} of the weights at 0, ` +
        `${percent(grid.clipped)} of all weights beyond the grid.`,
    );
  };
}

function flips(parent) {
  const map = new FlipMap(parent, "Codes that flip back and forth");
  return ({ step, map: cells, grid }) => {
    if (!cells) return;
    map.draw(cells);
    map.describe(
      `The matrix of the hidden layer, ${cells.rows} by ${cells.columns} cells, after step ${step}: ` +
        `${percent(grid.oscillating)} of its codes flip back and forth more often than every fiftieth step.`,
    );
  };
}

function diagnosis(parent) {
  const box = element("div", "diagnosis");
  const facts = element("dl");
  const values = ["Weights clipped", "Codes in use", "Flips since the frame before", "Gradient norm"].map((name) => {
    const value = element("dd");
    const pair = element("div");
    pair.append(element("dt", "", name), value);
    facts.append(pair);
    return value;
  });
  box.append(element("h3", "", "Diagnosis"));
  const say = spoken(box, "");
  box.append(facts);
  parent.append(box);
  return ({ step, grid, flips, codes, diagnosis, running }) => {
    const texts = [
      percent(grid.clipped),
      `${grid.codes_used} of ${levels(grid)}`,
      `${grouped(flips)} of ${grouped(codes)}`,
      grid.gradient_norm === null ? "no step yet" : short(grid.gradient_norm),
    ];
    const alongside = () => values.forEach((value, i) => (value.textContent = texts[i]));
    say(diagnosis, { patient: running, step, alongside });
  };
}

/** Losses and errors as a table, which is the legend of both charts, too. */
function numbers(parent) {
  const show = modelsTable(parent, { loss: "Training loss", error: "Error against the sine" });
  return (frame) => show((name, key) => short(frame[name][key]));
}

function tables(parent) {
  const names = MODELS.map(({ name }) => name);
  const losses = numbersTable(parent, "The training losses", ["Step", ...names, "Flips since the frame before"]);
  const codes = numbersTable(parent, "The weights on their grid", ["Code", "Weights nearest to it"]);
  const map = numbersTable(parent, "The flips", ["Flips back and forth", "Cells"]);
  return (frame, { frames }) => {
    losses(() => thinned(frames).map(({ step, loss, flips }) => [step, ...KEYS.map((key) => short(loss[key])), flips]));
    codes(() => perCode(frame.grid));
    map(() => (frame.map ? classes(frame.map) : []));
  };
}

/** How many weights lie nearest to each code, and beyond the outermost ones. @returns {[string, number][]} */
export function perCode({ quant_min, quant_max, bins_per_code, histogram }) {
  const sums = Array.from({ length: quant_max - quant_min + 3 }, (_, i) =>
    histogram.slice(i * bins_per_code, (i + 1) * bins_per_code).reduce((a, b) => a + b, 0),
  );
  return sums.map((count, i) => {
    const code = quant_min - 1 + i;
    if (code < quant_min) return [`below ${quant_min}`, count];
    return [code > quant_max ? `above ${quant_max}` : code, count];
  });
}

function levels({ quant_min, quant_max }) {
  return quant_max - quant_min + 1;
}
