/** Chapter "rounding": one weight on the stairs, the error it makes, and the errors of a whole matrix. */

import { DragPlot, within } from "../../static/charts/drag.js";
import { edges, stairs } from "../../static/charts/stairs.js";
import { oncePerFrame } from "../../static/data/follow.js";
import { loadWeights } from "../../static/data/pretrained.js";
import { dequantize, fakeQuantize, qparamsOfRange, quantSpec, quantize, roundToCodes } from "../../static/data/quantize.js";
import { chapterDone } from "../../static/page/done.js";
import { choice, slider } from "../../static/widgets/controls.js";
import { element, svgElement } from "../../static/widgets/dom.js";
import { grouped, short, signed } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { numbersTable } from "../../static/widgets/table.js";

const REACH = 1.25;
const WORST = 0.3;
const RULER = 1.14; // where the ruler of the levels lies
const SCALES = [0.01, 1];
const SMALLEST_RANGE = 0.05;
const BINS = 30;
const MARGIN = { right: 96 }; // room for the histograms
const X = { domain: [-REACH, REACH], ticks: [-1, -0.5, 0, 0.5, 1], format: (v) => signed(v, 1) };

export async function mount(view) {
  const weights = Float32Array.from((await loadWeights()).flatMap((row) => [...row]));
  const state = { w: Math.fround(0.31), spec: quantSpec(4), scale: Math.fround(0.12), zeroPoint: 0, wanted: null };
  const draw = oncePerFrame(() => {
    const now = { ...state, grid: { ...state.spec, scale: state.scale, zeroPoint: state.zeroPoint } };
    now.landed = landed(weights, now.grid);
    parts.forEach((update) => update(now));
  });
  const set = (changed) => {
    Object.assign(state, changed);
    draw();
    chapterDone("rounding");
  };
  const parts = [
    pipeline(view),
    stairsChart(view, state, set),
    errorChart(view, state, set),
    controls(view, state, set),
    sentence(view),
    table(view),
  ];
  draw();
}

/** The ends of the range that a grid covers. */
function rangeOf({ quantMin, quantMax, scale, zeroPoint }) {
  return [(quantMin - zeroPoint) * scale, (quantMax - zeroPoint) * scale];
}

function isClamped(w, grid) {
  return roundToCodes(w, grid) !== quantize(w, grid);
}

/** What becomes of all weights: how many land on each code, and their errors by size and kind. */
function landed(weights, grid) {
  const codes = new Uint32Array(grid.levels);
  const bins = { rounding: new Uint32Array(BINS), clipping: new Uint32Array(BINS) };
  const squares = { rounding: 0, clipping: 0 };
  let clamped = 0;
  for (const w of weights) {
    const error = fakeQuantize(w, grid) - w;
    const kind = isClamped(w, grid) ? "clipping" : "rounding";
    codes[quantize(w, grid) - grid.quantMin] += 1;
    bins[kind][within(Math.floor(((error + WORST) / (2 * WORST)) * BINS), [0, BINS - 1])] += 1;
    squares[kind] += error * error;
    if (kind === "clipping") clamped += 1;
  }
  const count = weights.length;
  return { codes, bins, clamped, count, mse: { rounding: squares.rounding / count, clipping: squares.clipping / count } };
}

/** w -> w / s -> round -> clamp -> times s, each with its number. */
function pipeline(parent) {
  const list = element("ol", "pipeline");
  const boxes = ["w", "w / s", "round", "clamp", "× s", "error"].map((name) => {
    const box = element("li");
    const label = element("span", "name", name);
    const value = element("span", "value");
    box.append(label, value);
    list.append(box);
    return { box, label, value };
  });
  parent.append(list);
  return ({ w, grid }) => {
    const unclamped = roundToCodes(w, grid);
    const code = quantize(w, grid);
    const error = dequantize(code, grid) - w;
    const clamped = code !== unclamped;
    const texts = [signed(w, 3), signed(w / grid.scale, 2), signed(unclamped, 0), signed(code, 0), signed(dequantize(code, grid), 3), signed(error, 3)];
    texts.forEach((text, i) => (boxes[i].value.textContent = text));
    boxes[2].label.textContent = grid.symmetric ? "round" : "round + z";
    boxes[4].label.textContent = grid.symmetric ? "× s" : "− z, × s";
    boxes[3].box.classList.toggle("clipping", clamped);
    boxes[5].box.className = clamped ? "clipping" : "rounding";
    boxes[5].label.textContent = clamped ? "clipping error" : "rounding error";
  };
}

function stairsChart(parent, state, set) {
  const plot = new DragPlot(parent, {
    title: "A weight on the stairs",
    height: 300,
    margin: MARGIN,
    x: { ...X, title: "weight w" },
    y: { ...X },
    legend: [["stairs", "its value on the grid"], ["ruler", "the levels, end to end"], ["count", "weights on a level (log)"]],
  });
  const masks = [plot.area("masked"), plot.area("masked")];
  const diagonal = plot.line("diagonal");
  const steps = plot.line("stairs");
  const ruler = plot.line("ruler");
  const stem = plot.line("stem");
  const counts = marginal(plot, "count");
  const end = (label, index) =>
    plot.handle({
      kind: "end",
      label,
      step: 0.01,
      range: () => (index ? [SMALLEST_RANGE, REACH] : [-REACH, state.spec.symmetric ? -SMALLEST_RANGE : 0]),
      get: () => rangeOf({ ...state.spec, ...state })[index],
      set: (to) => set(stretched(state, index, to)),
    });
  const [low, high] = [end("Lower end of the range", 0), end("Upper end of the range", 1)];
  const handle = plot.handle(weightHandle("Weight, on the stairs", state, set));
  return ({ w, grid, landed: { codes } }) => {
    const y = fakeQuantize(w, grid);
    const ends = rangeOf(grid);
    const outer = edges(grid);
    plot.show(() => {
      masks[0].setAttribute("d", plot.band(-REACH, Math.max(outer[0], -REACH)));
      masks[1].setAttribute("d", plot.band(Math.min(outer[outer.length - 1], REACH), REACH));
      diagonal.setAttribute("d", plot.through([-REACH, REACH], [-REACH, REACH]));
      steps.setAttribute("d", stairs(plot, grid));
      const ticks = Array.from(codes, (_, i) => `M${plot.px(dequantize(grid.quantMin + i, grid)).toFixed(1)} ${plot.py(RULER) - 5}v10`);
      ruler.setAttribute("d", plot.through(ends, [RULER, RULER]) + ticks.join(""));
      stem.setAttribute("d", plot.through([w, w, REACH], [-REACH, y, y]));
      counts(Array.from(codes, (n, i) => [plot.py(dequantize(grid.quantMin + i, grid)), n]), plot.py(0) - plot.py(grid.scale));
      low.place(Math.max(ends[0], -REACH), RULER, `range from ${signed(ends[0], 2)}`);
      high.place(Math.min(ends[1], REACH), RULER, `range to ${signed(ends[1], 2)}`);
      handle.place(w, y, `w = ${signed(w, 3)}, on the grid ${signed(y, 3)}`);
    });
    plot.describe(
      `Stairs of ${grid.levels} levels from ${signed(ends[0], 2)} to ${signed(ends[1], 2)}, flat beyond. ` +
        `The weight ${signed(w, 3)} lies on ${signed(y, 3)}.`,
    );
  };
}

function errorChart(parent, state, set) {
  const plot = new DragPlot(parent, {
    title: "The error it makes, and those of a trained matrix",
    height: 190,
    margin: MARGIN,
    x: { ...X, title: "weight w" },
    y: { domain: [-WORST, WORST], ticks: [-0.2, 0, 0.2], format: (v) => signed(v, 1) },
    legend: [["rounding", "rounding error"], ["clipping", "clipping error"]],
  });
  const inside = plot.line("rounding");
  const outside = plot.line("clipping");
  const stem = plot.line("stem");
  const bars = [marginal(plot, "errors-rounding"), marginal(plot, "errors-clipping")];
  const handle = plot.handle(weightHandle("Weight, and its error", state, set));
  return ({ w, grid, landed: { bins, mse } }) => {
    const error = fakeQuantize(w, grid) - w;
    const [bottom, top] = rangeOf(grid);
    const half = grid.scale / 2;
    const all = edges(grid);
    const last = all[all.length - 1];
    plot.show(() => {
      inside.setAttribute("d", all.slice(0, -1).map((edge) => plot.through([edge, edge + grid.scale], [half, -half])).join(""));
      outside.setAttribute(
        "d",
        plot.through([all[0], -2 * REACH], [half, bottom + 2 * REACH]) + plot.through([last, 2 * REACH], [-half, top - 2 * REACH]),
      );
      stem.setAttribute("d", plot.through([w, w], [0, error]));
      ["rounding", "clipping"].forEach((kind, k) =>
        bars[k](
          Array.from(bins[kind], (n, i) => [plot.py(((i + 0.5) / BINS) * 2 * WORST - WORST), n]),
          (plot.py(-WORST) - plot.py(WORST)) / BINS,
        ),
      );
      handle.place(w, within(error, [-WORST, WORST]), `error ${signed(error, 3)}`);
    });
    plot.describe(
      `Error against weight: a saw of ± ${half.toFixed(3)} in range, a straight line beyond. Over the matrix, rounding ` +
        `makes a mean squared error of ${short(mse.rounding)}, clipping one of ${short(mse.clipping)}.`,
    );
  };
}

/** A histogram in the right margin: bars at heights, as long as the logarithm of their count. */
function marginal(plot, kind) {
  const path = svgElement("path", { class: kind, "aria-hidden": "true" });
  plot.svg.append(path);
  return (entries, apart) => {
    const left = plot.width - MARGIN.right + 10;
    const longest = MARGIN.right - 14;
    const thick = within(apart - 1, [0.75, 7]);
    const [top, bottom] = [plot.margin.top, plot.height - plot.margin.bottom];
    path.setAttribute("stroke-width", thick);
    path.setAttribute(
      "d",
      entries
        .filter(([y, n]) => n > 0 && y >= top && y <= bottom)
        .map(([y, n]) => `M${left} ${y.toFixed(1)}h${((longest * Math.log1p(n)) / Math.log1p(4096)).toFixed(1)}`)
        .join(""),
    );
  };
}

function weightHandle(label, state, set) {
  return {
    kind: "x",
    label,
    step: 0.01,
    range: () => [-REACH, REACH],
    get: () => state.w,
    set: (w) => set({ w: Math.fround(w) }),
    everywhere: true,
  };
}

/**
 * The grid with one end of its range moved; a symmetric grid follows with the other end, too. `wanted` is the range
 * that was asked for: the zero point is whole, so the grid lies beside it by up to half a step.
 */
function stretched({ spec, scale, zeroPoint, wanted }, index, to) {
  if (spec.symmetric) return { scale: Math.fround(to / (index ? spec.quantMax : spec.quantMin)), wanted: null };
  const ends = [...(wanted ?? rangeOf({ ...spec, scale, zeroPoint }))];
  ends[index] = Math.fround(to);
  return { ...qparamsOfRange(...ends.map(Math.fround), spec), wanted: ends };
}

function controls(parent, state, set) {
  const row = element("div", "controls");
  parent.append(row);
  const another = (bits, symmetric) => {
    const [low, high] = rangeOf({ ...state.spec, ...state });
    const spec = quantSpec(bits, { symmetric });
    const reach = symmetric ? Math.max(-low, high) : high;
    set({ spec, ...qparamsOfRange(Math.fround(symmetric ? -reach : low), Math.fround(reach), spec), wanted: null });
  };
  const bits = choice(row, {
    label: "Bits",
    options: [2, 3, 4, 8].map((n) => [n, String(n)]),
    value: state.spec.bits,
    set: (n) => another(n, state.spec.symmetric),
  });
  choice(row, {
    label: "Grid",
    options: [[true, "symmetric"], [false, "asymmetric"]],
    value: state.spec.symmetric,
    set: (symmetric) => another(state.spec.bits, symmetric),
  });
  const sliders = element("div", "controls");
  parent.append(sliders);
  const scale = slider(sliders, {
    label: "scale s",
    min: Math.log2(SCALES[0]),
    max: Math.log2(SCALES[1]),
    step: 0.01,
    value: Math.log2(state.scale),
    set: (log2) => set({ scale: Math.fround(2 ** log2), wanted: null }),
  });
  const zero = slider(sliders, {
    label: "zero_point z",
    min: 0,
    max: 15,
    step: 1,
    value: 0,
    set: (zeroPoint) => set({ zeroPoint, wanted: null }),
  });
  return ({ grid }) => {
    bits(grid.bits);
    scale(Math.log2(grid.scale), grid.scale.toFixed(4));
    zero(grid.zeroPoint, grid.symmetric ? "0: symmetric" : String(grid.zeroPoint), grid.symmetric, grid.quantMax);
  };
}

function sentence(parent) {
  const say = spoken(parent);
  return ({ w, grid, landed: { clamped, count, mse } }) => {
    const kind = isClamped(w, grid) ? "clipping" : "rounding";
    const error = signed(fakeQuantize(w, grid) - w, 3);
    say(
      `The ${kind} error of this weight is ${error}. Of the ${grouped(count)} weights of the matrix ${grouped(clamped)} are clamped; ` +
        `mean squared error: ${short(mse.rounding)} from rounding, ${short(mse.clipping)} from clipping.`,
    );
  };
}

function table(parent) {
  const update = numbersTable(parent, "The levels", ["Code", "Value", "Weights of the matrix"]);
  return ({ grid, landed: { codes } }) =>
    update(() => Array.from(codes, (n, i) => [signed(grid.quantMin + i, 0), signed(dequantize(grid.quantMin + i, grid), 3), grouped(n)]));
}
