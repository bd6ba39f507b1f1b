/** Chapter "qat": three fits, their losses, the weights on their grid, and which codes are restless. */

import { FitPlot, sine } from "./fit_plot.js";
import { FlipMap, classes } from "./flip_map.js";
import { LossPlot } from "./loss_plot.js";
import { MODELS, element, short, swatch } from "./models.js";
import { follow, last } from "./recording.js";
import { Scrubber } from "./scrubber.js";
import { StairsPlot } from "./stairs_plot.js";
import { grouped, patiently, statusLine } from "./status.js";
import { tableToggle, thinned } from "./table.js";

const KEYS = MODELS.map(({ key }) => key);
const LEGEND = MODELS.map(({ key, name }) => [key, name]);
const HEIGHT = 300;

export function mount(root) {
  const view = root.querySelector(".view");
  view.replaceChildren();
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
    if (newest.step === newest.steps) window.dispatchEvent(new CustomEvent("chapter-done", { detail: "qat" }));
    const shown = scrubber.choose(run.frames);
    view.dataset.shown = shown.step;
    status(newest, shown.words.qat);
    for (const update of parts) update(shown, run);
  };
  follow(root, draw);
}

// Each part of the view builds its nodes once and returns the function that updates them.

function fitChart(parent) {
  const plot = new FitPlot(parent, { title: "The fit", height: HEIGHT, fits: KEYS, legend: LEGEND });
  return (frame, { noisy }) => {
    plot.show(() => plot.drawData({ noisy, clean: sine() }, frame.curves));
    plot.describe(
      `Noisy points of a sine and three fits after step ${frame.step} of ${frame.steps}. ` +
        `Mean squared error against the sine: ${list(frame.error)}.`,
    );
  };
}

function lossChart(parent) {
  const series = LEGEND.map(([key, name]) => [key, name, ({ loss }) => loss[key]]);
  const plot = new LossPlot(parent, { title: "Training loss, log scale", height: HEIGHT, series });
  return (frame, { frames }) => {
    plot.show(() => plot.drawRun(frames, frame));
    plot.describe(`Training loss after step ${frame.step}: ${list(frame.loss)}.`);
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
  const words = element("p");
  const facts = element("dl");
  const values = ["Weights clipped", "Codes in use", "Flips since the frame before", "Gradient norm"].map((name) => {
    const value = element("dd");
    const pair = element("div");
    pair.append(element("dt", "", name), value);
    facts.append(pair);
    return value;
  });
  box.append(element("h3", "", "Diagnosis"), words, facts);
  parent.append(box);
  const say = patiently(words);
  return ({ grid, flips, codes, diagnosis, running }, { frames }) => {
    say(diagnosis, running && frames.length > 2);
    const texts = [
      percent(grid.clipped),
      `${grid.codes_used} of ${levels(grid)}`,
      `${grouped(flips)} of ${grouped(codes)}`,
      grid.gradient_norm === null ? "no step yet" : short(grid.gradient_norm),
    ];
    values.forEach((value, i) => (value.textContent = texts[i]));
  };
}

/** Losses and errors as a table, which is the legend of both charts, too. */
function numbers(parent) {
  const table = element("table", "numbers");
  const head = table.createTHead().insertRow();
  for (const title of ["Model", "Training loss", "Error against the sine"]) head.append(headCell("col", title));
  const body = table.createTBody();
  const cells = MODELS.map(({ key, name, about }) => {
    const row = body.insertRow();
    row.append(headCell("row", swatch(key), element("span", `name ${key}`, name), element("span", "about", about)));
    const loss = row.insertCell();
    const error = row.insertCell();
    loss.dataset.loss = error.dataset.error = key;
    return { key, loss, error };
  });
  parent.append(table);
  return (frame) => {
    for (const { key, loss, error } of cells) {
      loss.textContent = short(frame.loss[key]);
      error.textContent = short(frame.error[key]);
    }
  };
}

function tables(parent) {
  const losses = tableToggle(parent, "The training losses");
  const codes = tableToggle(parent, "The weights on their grid");
  const map = tableToggle(parent, "The flips");
  return (frame, { frames }) => {
    losses(["step", ...MODELS.map(({ name }) => name), "flips since the frame before"], () =>
      thinned(frames).map(({ step, loss, flips }) => [step, ...KEYS.map((key) => short(loss[key])), flips]),
    );
    codes(["code", "weights nearest to it"], () => perCode(frame.grid));
    map(["flips back and forth", "cells"], () => (frame.map ? classes(frame.map) : []));
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

function headCell(scope, ...content) {
  const cell = element("th");
  cell.setAttribute("scope", scope);
  cell.append(...content);
  return cell;
}

function list(values) {
  return MODELS.map(({ key, name }) => `${name} ${short(values[key])}`).join(", ");
}

function levels({ quant_min, quant_max }) {
  return quant_max - quant_min + 1;
}

function percent(share) {
  return `${Number((100 * share).toPrecision(3))}%`;
}
