/** Chapter "the zero gradient": plain rounding beside what learns, and the loss along a single weight. */

import { FitPlot } from "../../static/charts/fit_plot.js";
import { Heatmap } from "../../static/charts/heatmap.js";
import { Plot } from "../../static/charts/plot.js";
import { multiple, nice, tick } from "../../static/charts/ticks.js";
import { follow } from "../../static/data/follow.js";
import { chapterDone } from "../../static/page/done.js";
import { button, element } from "../../static/widgets/dom.js";
import { readable, short } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { headCell, headed, numbersTable, thinned } from "../../static/widgets/table.js";

const PATIENCE = 150; // milliseconds without a further arrow key before the server is asked
const RULES = {
  round: { name: "torch.round()", line: "stuck" },
  ste: { name: "STE", line: "qat" },
  none: { name: "not rounded", line: "fp32" },
};

export function mount(view, props, watch, trigger) {
  let frame = null;
  let rival = "ste";
  let due = 0;
  const choose = (row, col) => {
    Object.assign(frame.cut, { row, col });
    for (const part of duel.matrices) part(frame, rival);
    clearTimeout(due);
    due = setTimeout(() => trigger("select", { row, col }), PATIENCE);
  };
  const prefer = (rule) => {
    rival = rule;
    draw();
  };

  const words = status(view);
  const duel = panels(view, choose, prefer);
  const parts = [words, ...duel.matrices, ...duel.others, stillness(duel.box), slice(view)];
  const draw = () => {
    view.dataset.step = frame.step;
    view.dataset.running = frame.running;
    for (const part of parts) part(frame, rival);
  };
  follow(props, watch, (latest) => {
    frame = latest;
    draw();
    if (frame.step > 0 && !frame.running) chapterDone("zero_gradient");
  });
}

// Each part builds its nodes once and returns the function that updates them.

function status(parent) {
  const say = spoken(parent);
  return (frame) => say(frame.problem || frame.words, { patient: frame.running, problem: Boolean(frame.problem), step: frame.step });
}

/** Two networks side by side: their gradients, and what comes of them. */
function panels(parent, choose, prefer) {
  const box = element("div", "duel");
  const plain = element("section");
  plain.append(element("h3", "", RULES.round.name));
  const other = element("section");
  const rivals = element("div", "rivals segments");
  rivals.setAttribute("role", "group");
  rivals.setAttribute("aria-label", "Beside it");
  const buttons = ["ste", "none"].map((rule) => [rule, button(RULES[rule].name, () => prefer(rule))]);
  rivals.append(...buttons.map(([, node]) => node));
  other.append(rivals);
  const charts = element("section", "fits");
  box.append(plain, other, charts);
  parent.append(box);
  const press = (frame, rival) => {
    for (const [rule, node] of buttons) node.setAttribute("aria-pressed", String(rule === rival));
  };
  return {
    box,
    matrices: [gradients(plain, choose, () => "round"), gradients(other, choose, (rival) => rival)],
    others: [press, fit(charts), losses(charts)],
  };
}

function gradients(parent, choose, ruleOf) {
  const heatmap = new Heatmap(parent, "Gradient of the loss at each weight", choose);
  const count = element("p", "count");
  const largest = element("p", "quiet");
  parent.append(count, largest);
  return (frame, rival) => {
    const { gradient, largest: size, still } = frame.rules[ruleOf(rival)];
    const levels = Int8Array.from(atob(gradient), (c) => c.charCodeAt(0));
    const zeros = levels.filter((level) => level === 0).length;
    const { row, col } = frame.cut;
    heatmap.show({ rows: frame.size, cols: frame.size, codes: levels, reach: 127, marks: (i) => (levels[i] === 0 ? "0" : "") });
    heatmap.select(row, col, `${zeros} of ${levels.length} are exactly 0. Row ${row}, column ${col} is chosen.`);
    count.replaceChildren(element("strong", "", `${zeros} of ${levels.length}`), " gradients are exactly 0");
    const { moved, count: all } = still.weights;
    largest.textContent = `Largest: ${readable(size)}. ${moved} of ${all} weights have moved.`;
  };
}

function fit(parent) {
  const plot = new FitPlot(parent, {
    title: "The fit",
    height: 190,
    fits: Object.values(RULES).map(({ line }) => line),
    legend: Object.values(RULES).map(({ name, line }) => [line, name]),
  });
  return (frame, rival) => {
    const curves = Object.fromEntries(["round", rival].map((rule) => [RULES[rule].line, frame.rules[rule].curve]));
    plot.show(() => plot.drawData(frame, curves));
    plot.describe(`Noisy points of a sine, and the fits after step ${frame.step}: ${told(frame, rival)}.`);
  };
}

function losses(parent) {
  const plot = new Plot(parent, {
    title: "Training loss",
    height: 190,
    x: { domain: [0, 400], ticks: [0, 100, 200, 300, 400], title: "optimizer step" },
    y: { ...nice(0, 0.6) },
    legend: [],
  });
  const lines = Object.fromEntries(Object.entries(RULES).map(([rule, { line }]) => [rule, plot.line(line)]));
  const table = numbersTable(parent, "Training loss", ["Step", ...Object.values(RULES).map(({ name }) => name)]);
  return (frame, rival) => {
    table(() => thinned(frame.history).map((row) => row.map(readable)));
    const steps = frame.history.map(([step]) => step);
    plot.setAxis("y", nice(0, Math.max(0.6, ...frame.history.flatMap(([, ...values]) => values))));
    plot.show(() =>
      Object.keys(RULES).forEach((rule, i) => {
        const values = rule === "round" || rule === rival ? frame.history.map((row) => row[i + 1]) : [];
        lines[rule].setAttribute("d", plot.through(steps.slice(0, values.length), values));
      }),
    );
    plot.describe(`Training loss after step ${frame.step}: ${told(frame, rival)}.`);
  };
}

function told(frame, rival) {
  return ["round", rival].map((rule) => `${RULES[rule].name} ${short(frame.rules[rule].loss)}`).join(", ");
}

/** Which parameters may learn, which of them have a gradient, and which moved. */
function stillness(parent) {
  const { table, body, heads } = headed(["Parameters", "", ""], { caption: "What has moved since step 0" });
  const rows = ["weights", "biases", "scales"].map((kind) => {
    const row = body.insertRow();
    row.append(headCell(kind, "row"));
    return [kind, row.insertCell(), row.insertCell()];
  });
  parent.append(table);
  return (frame, rival) => {
    const rules = ["round", rival];
    rules.forEach((rule, i) => (heads[i + 1].textContent = RULES[rule].name));
    for (const [kind, ...cells] of rows) cells.forEach((cell, i) => (cell.textContent = stands(frame, rules[i], kind)));
  };
}

function stands(frame, rule, kind) {
  const { count, moved } = frame.rules[rule].still[kind];
  if (kind === "biases" && frame.free === "weights") return "held still";
  if (kind === "scales" && frame.free !== "scales") return rule === "none" ? "none needed" : "measured on the weights";
  if (kind === "scales" && rule === "none") return "none needed";
  return `${moved} of ${count} moved`;
}

/** The loss along one weight, and the slope that a difference of any width sees. */
function slice(parent) {
  const box = element("div", "slice");
  const chart = element("div");
  const plot = new Plot(chart, {
    title: "The loss along the chosen weight of torch.round()",
    height: 300,
    x: { domain: [0, 1], ticks: [], title: "latent weight w" },
    y: { domain: [0, 1], ticks: [], format: tick },
    legend: [["stair", "rounded"], ["smooth", "not rounded"], ["secant", "difference"], ["slope", "STE"]],
  });
  const lines = Object.fromEntries(["smooth", "stair", "slope", "secant", "ends", "here"].map((kind) => [kind, plot.line(kind)]));

  const table = numbersTable(chart, "The loss along the weight", ["w", "Loss, rounded", "Loss, not rounded"]);

  const side = element("div", "slopes");
  const label = element("label", "", "Half width h of the difference");
  const slider = element("input");
  slider.type = "range";
  slider.id = "zero-h";
  label.htmlFor = slider.id;
  slider.min = 0;
  slider.step = 1;
  const width = element("p", "quiet");
  const list = element("dl");
  const rows = ["Autograd, through round()", "Difference over ± h", "Straight-through estimator (STE)"].map((name) => {
    const value = element("dd");
    list.append(element("dt", "", name), value);
    return value;
  });
  const verdict = element("p", "words");
  side.append(label, slider, width, list, verdict);
  box.append(chart, side);
  parent.append(box);

  let cut = null;
  const draw = () => {
    const i = Number(slider.value);
    const h = cut.widths[i];
    const difference = (cut.above[i] - cut.below[i]) / (2 * h);
    const stairs = h / cut.scale;
    slider.setAttribute("aria-valuetext", `${stairs.toPrecision(2)} stairs`);
    width.textContent = `h = ${readable(Number(h.toPrecision(3)))}, ${stairs.toPrecision(2)} stairs`;
    rows[0].textContent = readable(cut.true_slope);
    rows[1].textContent = readable(difference);
    rows[2].textContent = readable(cut.ste_slope);
    verdict.textContent =
      difference === 0
        ? "Both ends stand on the same stair: no difference, no slope. Autograd is right, and of no use."
        : "Wide enough to see another stair. From afar the stairs have a slope, much like the curve that they follow.";
    plot.describe(
      `The loss along the weight in row ${cut.row}, column ${cut.col}: stairs when it is rounded, a smooth curve when not. ` +
        `The slope is ${readable(cut.true_slope)}, over plus and minus ${stairs.toPrecision(2)} stairs ${readable(difference)}, ` +
        `and ${readable(cut.ste_slope)} for the straight-through estimator.`,
    );
    plot.show(() => {
      const { weight, at, scale } = cut;
      const [from, to] = [at[0], at.at(-1)];
      const level = Math.round(weight / scale) * scale;
      lines.smooth.setAttribute("d", plot.through(at, cut.smooth));
      lines.stair.setAttribute("d", stairPath(plot, at, cut.rounded));
      const tangent = (x) => cut.loss + cut.ste_slope * (x - level);
      const reach = [Math.max(from, level - scale), Math.min(to, level + scale)];
      lines.slope.setAttribute("d", plot.through(reach, reach.map(tangent)));
      const ends = [weight - h, weight + h];
      lines.secant.setAttribute("d", plot.through(ends, [cut.below[i], cut.above[i]]));
      lines.ends.setAttribute("d", plot.dots(ends, [cut.below[i], cut.above[i]]));
      lines.here.setAttribute("d", plot.dots([weight], [cut.loss]));
    });
  };
  slider.addEventListener("input", draw);

  return (frame) => {
    const isFirst = cut === null;
    cut = frame.cut;
    slider.max = cut.widths.length - 1;
    if (isFirst) slider.value = 20;
    const codes = [-2, -1, 0, 1, 2].map((k) => (Math.round(cut.weight / cut.scale) + k) * cut.scale);
    plot.setAxis("x", { domain: [cut.at[0], cut.at.at(-1)], ticks: codes, format: (w) => multiple(w, cut.scale) });
    const values = [...cut.rounded, ...cut.smooth];
    plot.setAxis("y", nice(Math.min(...values), Math.max(...values)));
    const points = cut.at.map((w, i) => [w, cut.rounded[i], cut.smooth[i]]);
    table(() => thinned(points, 41).map((row) => row.map(readable)));
    draw();
  };
}

/** Vertical between two stairs, wherever the sampled value jumps. */
function stairPath(plot, xs, ys) {
  const [px, py] = [[], []];
  ys.forEach((y, i) => {
    if (i && y !== ys[i - 1]) {
      const edge = (xs[i] + xs[i - 1]) / 2;
      px.push(edge, edge);
      py.push(ys[i - 1], y);
    }
    px.push(xs[i]);
    py.push(y);
  });
  return plot.through(px, py);
}
