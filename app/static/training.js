/** Chapter "training": the fits, the losses, and both in numbers and words. */

import { FitPlot } from "./fit_plot.js";
import { follow } from "./follow.js";
import { MODELS, element, short, swatch } from "./models.js";
import { Plot, decades } from "./plot.js";

const SECONDS_BETWEEN_WORDS = 2.5; // while training: a sentence takes time to read, and to be read aloud
const HEIGHT = 330;
const KEYS = MODELS.map(({ key }) => key);
const LEGEND = MODELS.map(({ key, name }) => [key, name]);

export function mount(root, props, watch) {
  const view = root.querySelector(".view");
  view.replaceChildren();
  const charts = element("div", "charts");
  const parts = [statusLine(view), fitChart(charts), lossChart(charts)];
  view.append(charts);
  parts.push(numbers(view));

  follow(props, watch, (frame) => {
    view.dataset.step = frame.step;
    view.dataset.label = frame.label;
    for (const update of parts) update(frame);
    window.dispatchEvent(new CustomEvent("network", { detail: frame.label }));
  });
}

// Each part of the view builds its nodes once and returns the function that updates them.

function statusLine(parent) {
  const status = element("div", "status");
  const progress = element("div");
  const step = element("span", "step");
  const bar = element("progress");
  bar.setAttribute("aria-label", "Training");
  progress.append(step, bar);
  const words = element("p", "words");
  words.setAttribute("aria-live", "polite");
  const note = element("p", "note quiet");
  status.append(progress, words, note);
  parent.append(status);
  const say = patiently(words);
  return (frame) => {
    step.textContent = `Step ${grouped(frame.step)} of ${grouped(frame.steps)}`;
    bar.max = frame.steps;
    bar.value = frame.step;
    say(frame.problem || frame.words, frame.running);
    words.classList.toggle("problem", Boolean(frame.problem));
    note.textContent = frame.note;
  };
}

function fitChart(parent) {
  const plot = new FitPlot(parent, { title: "The fit", height: HEIGHT, fits: KEYS, legend: LEGEND });
  return (frame) => {
    plot.show(() => plot.drawData(frame, frame.curves));
    plot.describe(
      `Noisy points of a sine and three fits after step ${frame.step} of ${frame.steps}. ` +
        `Mean squared error against the sine: ${list(frame.error)}.`,
    );
  };
}

function lossChart(parent) {
  const plot = new Plot(parent, {
    title: "Training loss, log scale",
    height: HEIGHT,
    x: { ...quarters(2000), title: "optimizer step" },
    y: { ...decades([], -3, 1), log: true, format: decade },
    legend: LEGEND,
  });
  const lines = KEYS.map((key) => ({ line: plot.line(key), head: plot.line(`head ${key}`) }));
  return (frame) => {
    const [steps, ...losses] = transposed(frame.history);
    plot.setAxis("x", quarters(frame.steps));
    plot.setAxis("y", decades(losses.flat(), -3, 1));
    plot.show(() =>
      lines.forEach(({ line, head }, i) => {
        line.setAttribute("d", plot.through(steps, losses[i]));
        head.setAttribute("d", plot.dots(steps.slice(-1), losses[i].slice(-1)));
      }),
    );
    plot.describe(`Training loss after step ${frame.step}: ${list(frame.loss)}.`);
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
  const flips = table.createTFoot().insertRow().insertCell();
  flips.className = "quiet";
  flips.colSpan = 3;
  parent.append(table);
  return (frame) => {
    for (const { key, loss, error } of cells) {
      loss.textContent = short(frame.loss[key]);
      error.textContent = short(frame.error[key]);
    }
    const codes = `${grouped(frame.codes)} weight codes`;
    flips.textContent =
      frame.step === 0
        ? `QAT learns ${codes}.`
        : `${grouped(frame.flips)} of the ${codes} of QAT flipped since the frame before.`;
  };
}

function headCell(scope, ...content) {
  const cell = element("th");
  cell.setAttribute("scope", scope);
  cell.append(...content);
  return cell;
}

/** A function that changes the words at most every few seconds while training, and at once otherwise. */
function patiently(node) {
  let last = -Infinity;
  return (text, running) => {
    const now = performance.now() / 1000;
    if (running && now - last < SECONDS_BETWEEN_WORDS) return;
    last = now;
    if (node.textContent !== text) node.textContent = text;
  };
}

/** An axis from 0 in four equal parts. */
function quarters(end) {
  return { domain: [0, end], ticks: [0, 1, 2, 3, 4].map((i) => (i * end) / 4) };
}

function transposed(rows) {
  return rows[0].map((_, column) => rows.map((row) => row[column]));
}

function list(values) {
  return MODELS.map(({ key, name }) => `${name} ${short(values[key])}`).join(", ");
}

function grouped(count) {
  return count.toLocaleString("en");
}

function decade(value) {
  return value >= 1e-3 && value <= 1000 ? grouped(value) : value.toExponential(0);
}
