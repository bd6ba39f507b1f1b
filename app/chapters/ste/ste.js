/** Chapter "ste": the stairs that are computed beside the ramp that is differentiated, at one x. */

import { DragPlot } from "../../static/charts/drag.js";
import { edges, ramp, stairs } from "../../static/charts/stairs.js";
import { oncePerFrame } from "../../static/data/follow.js";
import { dequantize, fakeQuantize, quantSpec, quantize, steGradient } from "../../static/data/quantize.js";
import { chapterDone } from "../../static/page/done.js";
import { element, svgElement } from "../../static/widgets/dom.js";
import { signed } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { numbersTable } from "../../static/widgets/table.js";

const GRID = { ...quantSpec(3), scale: 0.25, zeroPoint: 0 };
const REACH = 1.5;
const STEP = 0.025;
const TANGENT = 0.25; // half its width
const H = { smallest: 0.01, largest: 1 };
const HEIGHT = 320;
const AXIS = { domain: [-REACH, REACH], ticks: [-1.5, -1, -0.5, 0, 0.5, 1, 1.5], format: (v) => signed(v, 1) };
const UPWARDS = { ...AXIS, domain: [-1.5, 1.25], ticks: [-1, -0.5, 0, 0.5, 1] };

export function mount(view) {
  const state = { x: Math.fround(0.31), h: 0.4 };
  const draw = oncePerFrame(() => parts.forEach((update) => update(slopesAt(state))));
  const set = (changed) => {
    Object.assign(state, changed);
    draw();
    chapterDone("ste");
  };
  const pair = element("div", "pair");
  view.append(pair);
  const parts = [forward(pair, state, set), backward(pair, state, set), cards(view), sentence(view)];
  table(view);
  draw();
}

/** The three slopes at x: over a distance, in truth, and as the straight-through estimator has it. */
function slopesAt({ x, h }) {
  const [before, after] = [Math.fround(x - h), Math.fround(x + h)];
  const y = fakeQuantize(x, GRID);
  return {
    x,
    h,
    y,
    code: quantize(x, GRID),
    ends: [before, after],
    values: [fakeQuantize(before, GRID), fakeQuantize(after, GRID)],
    difference: (fakeQuantize(after, GRID) - fakeQuantize(before, GRID)) / (2 * h),
    truth: edges(GRID).slice(1, -1).includes(x) ? null : 0,
    ste: steGradient(1, x, GRID),
  };
}

function forward(parent, state, set) {
  const plot = new DragPlot(parent, {
    title: "Forward: the stairs",
    height: HEIGHT,
    x: { ...AXIS, title: "latent weight x" },
    y: UPWARDS,
    legend: [["stairs", "y = s · clamp(round(x / s))"], ["truth", "true slope"], ["secant", "slope over ± h"]],
  });
  const line = plot.line("ste-ramp faint");
  const steps = plot.line("stairs");
  const width = plot.line("width");
  const secant = plot.line("secant");
  const stem = plot.line("stem");
  const tangent = plot.line("truth");
  const handle = plot.handle(xHandle("x, in the forward pass", state, set));
  const reach = plot.handle({
    kind: "reach",
    label: "h, the distance of the finite difference",
    step: STEP,
    range: () => [state.x + H.smallest, Math.max(state.x + H.smallest, Math.min(state.x + H.largest, REACH))],
    get: () => state.x + state.h,
    set: (end) => set({ h: Math.max(H.smallest, end - state.x) }),
  });
  return (at) => {
    const bottom = plot.y.domain[0];
    plot.show(() => {
      line.setAttribute("d", ramp(plot, GRID));
      steps.setAttribute("d", stairs(plot, GRID));
      secant.setAttribute("d", plot.through(at.ends, at.values));
      width.setAttribute("d", plot.through(at.ends, [bottom, bottom]));
      stem.setAttribute("d", plot.through([at.x, at.x], [bottom, at.y]));
      tangent.setAttribute("d", plot.through([at.x - TANGENT, at.x + TANGENT], [at.y, at.y]));
      handle.place(at.x, at.y, `x = ${signed(at.x, 2)}, y = ${signed(at.y, 2)}`);
      reach.place(Math.min(at.x + at.h, REACH), bottom, `h = ${at.h.toFixed(2)}`);
    });
    plot.describe(
      `A staircase of ${GRID.levels} levels. At x = ${signed(at.x, 2)} it is flat at ${signed(at.y, 2)}; ` +
        `between x − ${at.h.toFixed(2)} and x + ${at.h.toFixed(2)} it rises with a mean slope of ${signed(at.difference, 2)}.`,
    );
  };
}

function backward(parent, state, set) {
  const plot = new DragPlot(parent, {
    title: "Backward: the ramp that is differentiated",
    height: HEIGHT,
    x: { ...AXIS, title: "latent weight x" },
    y: UPWARDS,
    legend: [["ste-ramp", "slope 1"], ["masked", "clamped: slope 0"]],
  });
  const masks = [plot.area("masked"), plot.area("masked")];
  const steps = plot.line("stairs faint");
  const line = plot.line("ste-ramp");
  const tangent = plot.line("tangent");
  const labels = ["× 0", "× 1", "× 0"].map((text) => {
    const label = svgElement("text", { class: "factor", "text-anchor": "middle", "aria-hidden": "true" });
    label.textContent = text;
    plot.svg.append(label);
    return label;
  });
  const handle = plot.handle(xHandle("x, in the backward pass", state, set));
  const ends = edges(GRID);
  const [low, high] = [ends[0], ends[ends.length - 1]];
  return (at) => {
    const y = Math.min(Math.max(at.x, low), high);
    plot.show(() => {
      masks[0].setAttribute("d", plot.band(-REACH, low));
      masks[1].setAttribute("d", plot.band(high, REACH));
      steps.setAttribute("d", stairs(plot, GRID));
      line.setAttribute("d", ramp(plot, GRID));
      tangent.setAttribute("d", plot.through([at.x - TANGENT, at.x + TANGENT], [y - TANGENT * at.ste, y + TANGENT * at.ste]));
      [(low - REACH) / 2, (low + high) / 2, (high + REACH) / 2].forEach((x, i) => {
        labels[i].setAttribute("x", plot.px(x));
        labels[i].setAttribute("y", plot.py(plot.y.domain[1]) + 18);
      });
      handle.place(at.x, y, `x = ${signed(at.x, 2)}, gradient ${at.ste} times`);
    });
    plot.describe(
      `A straight ramp of slope 1 from ${signed(low, 3)} to ${signed(high, 3)}, flat beyond. ` +
        `At x = ${signed(at.x, 2)} its slope is ${at.ste}.`,
    );
  };
}

function xHandle(label, state, set) {
  return {
    kind: "x",
    label,
    step: STEP,
    range: () => [-REACH, REACH],
    get: () => state.x,
    set: (x) => set({ x: Math.fround(x) }),
    everywhere: true,
  };
}

/** The three slopes as numbers, and as lines that lean as much. */
function cards(parent) {
  const list = element("div", "slopes");
  const make = (kind, name, formula) => {
    const card = element("div", `slope ${kind}`);
    const dial = svgElement("svg", { viewBox: "-24 -24 48 48", width: 48, height: 48, "aria-hidden": "true" });
    const needle = svgElement("path", { class: `line ${kind}`, d: "M-20 0H20" });
    dial.append(svgElement("path", { class: "line rest", d: "M-22 0H22" }), needle);
    const value = element("span", "value");
    const text = element("div");
    text.append(element("p", "name", name), value, element("p", "quiet", formula));
    card.append(dial, text);
    list.append(card);
    return (slope) => {
      value.textContent = slope === null ? "undefined" : signed(slope, 2);
      needle.setAttribute("transform", `rotate(${slope === null ? -90 : (-Math.atan(slope) * 180) / Math.PI})`);
    };
  };
  const difference = make("secant", "Finite difference", "(y(x + h) − y(x − h)) / 2h");
  const truth = make("truth", "True gradient", "dy/dx of the stairs");
  const ste = make("ste-ramp", "STE", "dy/dx of the ramp");
  parent.append(list);
  return (at) => {
    difference(at.difference);
    truth(at.truth);
    ste(at.ste);
  };
}

function sentence(parent) {
  const say = spoken(parent);
  return (at) => {
    const here = `x = ${signed(at.x, 2)} becomes ${signed(at.y, 2)}, code ${signed(at.code, 0)}.`;
    if (at.ste === 0) {
      say(`${here} It is clamped: a small change of x changes nothing, on the stairs or on the ramp, so the STE passes 0.`);
      return;
    }
    const truth = at.truth === null ? "This is an edge: the stairs have no gradient here" : "The true gradient is 0";
    say(`${here} ${truth}; over ± ${at.h.toFixed(2)} the stairs rise with slope ${signed(at.difference, 2)}; the STE passes 1.`);
  };
}

function table(parent) {
  const columns = ["Code", "from x", "to x", "y", "true gradient", "STE"];
  const all = edges(GRID);
  const row = (code, from, to, ste) => {
    const y = dequantize(Math.min(Math.max(code, GRID.quantMin), GRID.quantMax), GRID);
    const at = (x) => (Number.isFinite(x) ? signed(x, 3) : "");
    return [signed(Math.min(Math.max(code, GRID.quantMin), GRID.quantMax), 0), at(from), at(to), signed(y, 2), "0", ste];
  };
  numbersTable(parent, "The stairs", columns)(() => [
    row(GRID.quantMin, -Infinity, all[0], "0"),
    ...Array.from({ length: GRID.levels }, (_, i) => row(GRID.quantMin + i, all[i], all[i + 1], "1")),
    row(GRID.quantMax, all[GRID.levels], Infinity, "0"),
  ]);
}
