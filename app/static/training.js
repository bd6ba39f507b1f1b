/** Chapter "training": the fits, the losses, and both in numbers and words. */

import { FitPlot } from "./fit_plot.js";
import { follow } from "./follow.js";
import { MODELS, element, short, swatch } from "./models.js";
import { Plot, decades } from "./plot.js";

const SECONDS_BETWEEN_WORDS = 2.5; // while training: a sentence takes time to read, and to be read aloud
const LEGEND = MODELS.map(({ key, name }) => [key, name]);

export function mount(root, props, watch) {
  const view = root.querySelector(".view");
  view.replaceChildren();

  const status = element("div", "status");
  const progress = element("div");
  const step = element("span", "step");
  const bar = element("progress");
  bar.setAttribute("aria-label", "Training");
  progress.append(step, bar);
  const words = element("p", "words");
  words.setAttribute("aria-live", "polite");
  status.append(progress, words);
  view.append(status);

  const charts = element("div", "charts");
  view.append(charts);
  const fit = new FitPlot(charts, {
    title: "The fit",
    height: 330,
    fits: MODELS.map(({ key }) => key),
    legend: LEGEND,
  });
  const loss = new Plot(charts, {
    title: "Training loss, log scale",
    height: 330,
    x: { domain: [0, 2000], ticks: [0, 500, 1000, 1500, 2000], title: "optimizer step" },
    y: { ...decades([], -3, 1), log: true, format: decade },
    legend: LEGEND,
  });
  const losses = Object.fromEntries(MODELS.map(({ key }) => [key, loss.line(key)]));
  const heads = Object.fromEntries(MODELS.map(({ key }) => [key, loss.line(`head ${key}`)]));
  const table = numbers(view);
  const say = patiently(words);

  follow(props, watch, (frame) => {
    view.dataset.step = frame.step;
    view.dataset.label = frame.label;
    step.textContent = `Step ${frame.step.toLocaleString("en")} of ${frame.steps.toLocaleString("en")}`;
    bar.max = frame.steps;
    bar.value = frame.step;
    say(frame.problem || frame.words, frame.running);
    words.classList.toggle("problem", Boolean(frame.problem));

    fit.show(() => fit.drawData(frame, frame.curves));
    fit.describe(describeFit(frame));

    const steps = frame.history.map(([at]) => at);
    loss.setAxis("x", { domain: [0, frame.steps], ticks: [0, 1, 2, 3, 4].map((i) => (i * frame.steps) / 4) });
    loss.setAxis("y", decades(frame.history.flatMap(([, ...values]) => values), -3, 1));
    loss.show(() => {
      MODELS.forEach(({ key }, i) => {
        const values = frame.history.map((row) => row[i + 1]);
        losses[key].setAttribute("d", loss.through(steps, values));
        heads[key].setAttribute("d", loss.dots(steps.slice(-1), values.slice(-1)));
      });
    });
    loss.describe(`Training loss after step ${frame.step}: ${list(frame.loss)}.`);

    table.update(frame);
    window.dispatchEvent(new CustomEvent("network", { detail: frame.label }));
  });
}

/** The losses and errors as a table, which is the legend of both charts, too. */
function numbers(parent) {
  const table = element("table", "numbers");
  const head = table.createTHead().insertRow();
  for (const title of ["Model", "Training loss", "Error against the sine"]) head.append(element("th", "", title));
  head.querySelectorAll("th").forEach((cell) => cell.setAttribute("scope", "col"));
  const body = table.createTBody();
  const cells = {};
  for (const { key, name, about } of MODELS) {
    const row = body.insertRow();
    const title = element("th");
    title.setAttribute("scope", "row");
    title.append(swatch(key), element("span", `name ${key}`, name), element("span", "about", about));
    row.append(title);
    cells[key] = { loss: row.insertCell(), error: row.insertCell() };
    cells[key].loss.dataset.loss = key;
    cells[key].error.dataset.error = key;
  }
  const flips = table.createTFoot().insertRow().insertCell();
  flips.className = "quiet";
  flips.colSpan = 3;
  parent.append(table);
  return {
    update(frame) {
      for (const { key } of MODELS) {
        cells[key].loss.textContent = short(frame.loss[key]);
        cells[key].error.textContent = short(frame.error[key]);
      }
      const codes = `${frame.codes.toLocaleString("en")} weight codes`;
      flips.textContent =
        frame.step === 0
          ? `QAT learns ${codes}.`
          : `${frame.flips.toLocaleString("en")} of the ${codes} of QAT flipped since the frame before.`;
    },
  };
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

function describeFit(frame) {
  return (
    `Noisy points of a sine and three fits after step ${frame.step} of ${frame.steps}. ` +
    `Mean squared error against the sine: ${list(frame.error)}.`
  );
}

function list(values) {
  return MODELS.map(({ key, name }) => `${name} ${short(values[key])}`).join(", ");
}

function decade(value) {
  return value >= 1e-3 && value <= 1000 ? value.toLocaleString("en") : value.toExponential(0);
}
