/** Chapter "ste": the learned step size. What one weight contributes to the scale's gradient, and what a matrix does. */

import { DragPlot } from "../../static/charts/drag.js";
import { edges } from "../../static/charts/stairs.js";
import { oncePerFrame } from "../../static/data/follow.js";
import { loadWeights } from "../../static/data/pretrained.js";
import { fakeQuantize, gradientFactor, lsqSlope, quantSpec, quantize, roundToCodes } from "../../static/data/quantize.js";
import { chapterDone } from "../../static/page/done.js";
import { element } from "../../static/widgets/dom.js";
import { grouped, signed } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { headCell, headed, numbersTable } from "../../static/widgets/table.js";

const SMALL = { ...quantSpec(3), scale: 0.25, zeroPoint: 0 };
const REACH = 1.5;
const SPEC = quantSpec(4);
const SCALES = { domain: [-6, 0.25], ticks: [-6, -5, -4, -3, -2, -1, 0], title: "scale, powers of two" };
const CURVE_POINTS = 100;
const HIGHEST = 1;

export async function mount(view) {
  const weights = Float32Array.from((await loadWeights()).flatMap((row) => [...row]));
  oneWeight(view);
  allWeights(view, weights);
}

/** dy/ds against x, with one x to drag. */
function oneWeight(parent) {
  const state = { x: Math.fround(0.31) };
  const plot = new DragPlot(parent, {
    title: "One weight: how its value y moves with the scale",
    height: 240,
    x: { domain: [-REACH, REACH], ticks: [-1, -0.5, 0, 0.5, 1], format: (v) => signed(v, 1), title: "latent weight x" },
    y: { domain: [-5, 4], ticks: [-4, -2, 0, 2, 4], format: (v) => signed(v, 0) },
    legend: [["rounding", "in range: round(x / s) − x / s"], ["clipping", "clamped: the code of the limit"]],
  });
  const ends = edges(SMALL);
  const [low, high] = [ends[0], ends[ends.length - 1]];
  const masks = [plot.area("masked"), plot.area("masked")];
  const clamped = plot.line("clipping");
  const inside = plot.line("rounding");
  const stem = plot.line("stem");
  const words = element("p", "quiet two-lines");
  parent.append(words);
  const draw = oncePerFrame(() => {
    const { x } = state;
    const slope = lsqSlope(1, x, SMALL) / SMALL.scale;
    const code = quantize(x, SMALL);
    const isClamped = roundToCodes(x, SMALL) !== code;
    plot.show(() => {
      masks[0].setAttribute("d", plot.band(-REACH, low));
      masks[1].setAttribute("d", plot.band(high, REACH));
      clamped.setAttribute(
        "d",
        plot.through([-REACH, low], [SMALL.quantMin, SMALL.quantMin]) + plot.through([high, REACH], [SMALL.quantMax, SMALL.quantMax]),
      );
      inside.setAttribute(
        "d",
        ends.slice(0, -1).map((edge) => plot.through([edge, edge + SMALL.scale], [0.5, -0.5])).join(""),
      );
      stem.setAttribute("d", plot.through([x, x], [0, slope]));
      handle.place(x, slope, `x = ${signed(x, 2)}, dy/ds = ${signed(slope, 2)}`);
    });
    words.textContent = isClamped
      ? `x = ${signed(x, 2)} is clamped to code ${signed(code, 0)}: its value is ${signed(code, 0)} · s, so dy/ds = ${signed(slope, 2)}.`
      : `x = ${signed(x, 2)} is ${signed(x / SMALL.scale, 2)} steps and rounds to ${signed(code, 0)}: dy/ds = ${signed(slope, 2)}, the rounding error in steps.`;
    plot.describe(
      `dy/ds against x: a saw between −0.5 and 0.5 in range, ${signed(SMALL.quantMin, 0)} and ${SMALL.quantMax} where clamped. ${words.textContent}`,
    );
  });
  const handle = plot.handle({
    kind: "x",
    label: "x, for the gradient of the scale",
    step: 0.05,
    range: () => [-REACH, REACH],
    get: () => state.x,
    set: (x) => {
      state.x = Math.fround(x);
      draw();
      chapterDone("ste");
    },
    everywhere: true,
  });
  draw();
}

/**
 * The gradient of a scale that all weights share, for the loss L = sum (y - w)² / 2, by region.
 * Positive: descent makes the scale smaller.
 */
function contributions(weights, scale) {
  const grid = { ...SPEC, scale, zeroPoint: 0 };
  const parts = { below: { count: 0, sum: 0 }, inside: { count: 0, sum: 0 }, above: { count: 0, sum: 0 } };
  for (const w of weights) {
    const code = roundToCodes(w, grid);
    const part = code < grid.quantMin ? parts.below : code > grid.quantMax ? parts.above : parts.inside;
    part.count += 1;
    part.sum += lsqSlope(Math.fround(fakeQuantize(w, grid) - w), w, grid);
  }
  const factor = gradientFactor(weights.length, grid.quantMax) / scale;
  for (const part of Object.values(parts)) part.sum *= factor;
  return parts;
}

function allWeights(parent, weights) {
  const scaleAt = (exponent) => Math.fround(2 ** exponent);
  const [from, to] = SCALES.domain;
  const exponents = Array.from({ length: CURVE_POINTS }, (_, i) => from + ((to - from) * i) / (CURVE_POINTS - 1));
  const curve = exponents.map((exponent) => contributions(weights, scaleAt(exponent)));
  const state = { exponent: -3.3 };
  const plot = new DragPlot(parent, {
    title: `${grouped(weights.length)} weights: which side pulls harder`,
    height: 240,
    x: { ...SCALES, format: (v) => (v < 0 ? `1/${2 ** -v}` : String(2 ** v)) },
    y: { domain: [0, HIGHEST], ticks: [0, 0.5, 1], format: (v) => v.toFixed(1) },
    legend: [["rounding", "rounding errors: smaller scale"], ["clipping", "clamped weights: larger scale"]],
  });
  const shrink = plot.line("rounding");
  const grow = plot.line("clipping");
  const stem = plot.line("stem");
  const dots = [plot.line("rounding spot"), plot.line("clipping spot")];
  const table = regions(parent);
  const say = spoken(parent);
  const draw = oncePerFrame(() => {
    const { exponent } = state;
    const parts = contributions(weights, scaleAt(exponent));
    const clipping = -(parts.below.sum + parts.above.sum);
    plot.show(() => {
      shrink.setAttribute("d", plot.through(exponents, curve.map(({ inside }) => inside.sum)));
      grow.setAttribute("d", plot.through(exponents, curve.map(({ below, above }) => -(below.sum + above.sum))));
      stem.setAttribute("d", plot.through([exponent, exponent], [0, HIGHEST]));
      dots[0].setAttribute("d", plot.dots([exponent], [parts.inside.sum]));
      dots[1].setAttribute("d", plot.dots([exponent], [clipping]));
      handle.place(exponent, 0, `scale ${scaleAt(exponent).toFixed(3)}`);
    });
    table(parts);
    const total = parts.inside.sum - clipping;
    const words =
      `At scale ${scaleAt(exponent).toFixed(3)} rounding pulls with ${parts.inside.sum.toFixed(2)}, clamping with ${clipping.toFixed(2)}: ` +
      (Math.abs(total) < 0.02 ? "they balance, and the scale stays." : `descent makes the scale ${total > 0 ? "smaller" : "larger"}.`);
    plot.describe(words);
    say(words);
  });
  const handle = plot.handle({
    kind: "reach",
    label: "Scale of the whole matrix",
    step: 0.05,
    range: () => SCALES.domain,
    get: () => state.exponent,
    set: (exponent) => {
      state.exponent = exponent;
      draw();
      chapterDone("ste");
    },
    everywhere: true,
  });
  numbersTable(parent, "Both pulls", ["Scale", "In range", "Clamped below", "Clamped above", "Weights clamped"])(() =>
    curve
      .filter((_, i) => i % 9 === 0)
      .map(({ below, inside, above }, i) => [
        scaleAt(exponents[9 * i]).toFixed(3),
        ...[inside, below, above].map(({ sum }) => signed(sum, 2)),
        String(below.count + above.count),
      ]),
  );
  draw();
}

/** What each region contributes at the scale in hand. */
function regions(parent) {
  const caption = "What each region contributes to the gradient";
  const { table, body } = headed(["Region", "Weights", "dL/ds"], { caption, className: "numbers regions" });
  const rows = Object.entries({ below: "clamped below", inside: "in range", above: "clamped above" }).map(([key, name]) => {
    const row = body.insertRow();
    row.append(headCell(name, "row"));
    return { key, count: row.insertCell(), sum: row.insertCell() };
  });
  parent.append(table);
  return (parts) => {
    for (const { key, count, sum } of rows) {
      count.textContent = grouped(parts[key].count);
      sum.textContent = signed(parts[key].sum, 3);
    }
  };
}
