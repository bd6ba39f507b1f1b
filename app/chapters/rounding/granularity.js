/** Chapter "rounding": one scale for a matrix, or one for each of its rows. */

import { DragPlot } from "../../static/charts/drag.js";
import { loadWeights } from "../../static/data/pretrained.js";
import { dequantize, fakeQuantize, minmaxQparams, quantSpec } from "../../static/data/quantize.js";
import { chapterDone } from "../../static/page/done.js";
import { choice } from "../../static/widgets/controls.js";
import { element } from "../../static/widgets/dom.js";
import { figures } from "../../static/widgets/figures.js";
import { grouped } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { numbersTable } from "../../static/widgets/table.js";

const REACH = 1.3;
const ROW = 5; // pixels
const BITS = [2, 3, 4, 8];
const CLOSEST = 2.5; // pixels between levels that can still be told apart

export async function mount(view) {
  const reach = (row) => Math.max(...row.map(Math.abs));
  const rows = [...(await loadWeights())].sort((a, b) => reach(b) - reach(a));
  const state = { bits: 4, granularity: "per_tensor" };
  const draw = () => parts.forEach((update) => update(rounded(rows, state)));
  const set = (changed) => {
    Object.assign(state, changed);
    draw();
    chapterDone("rounding");
  };
  const row = element("div", "controls");
  view.append(row);
  choice(row, {
    label: "One scale",
    options: [["per_tensor", "per tensor"], ["per_channel", "per channel"]],
    value: state.granularity,
    set: (granularity) => set({ granularity }),
  });
  choice(row, { label: "Bits", options: BITS.map((n) => [n, String(n)]), value: state.bits, set: (bits) => set({ bits }) });
  const show = figures(view);
  const sums = ({ mse, zeros, scales }) =>
    show([["mean squared error", error(mse)], ["weights become 0", grouped(zeros)], ["scales to store", String(scales)]]);
  const parts = [sums, strips(view, rows), sentence(view)];
  table(view, rows);
  draw();
}

/** The matrix on min-max grids: one for all rows, or one each. */
function rounded(rows, { bits, granularity }) {
  const spec = quantSpec(bits);
  const shared = granularity === "per_tensor" ? { ...spec, ...minmaxQparams(rows.flatMap((row) => [...row]), spec) } : null;
  const grids = rows.map((row) => shared ?? { ...spec, ...minmaxQparams(row, spec) });
  let squares = 0;
  let zeros = 0;
  let count = 0;
  rows.forEach((row, i) => {
    for (const w of row) {
      const y = fakeQuantize(w, grids[i]);
      squares += (y - w) ** 2;
      zeros += y === 0 ? 1 : 0;
      count += 1;
    }
  });
  return { bits, granularity, grids, mse: squares / count, zeros, count, scales: shared ? 1 : rows.length };
}

/** One strip a row: its weights, and the levels they may take. */
function strips(parent, rows) {
  const plot = new DragPlot(parent, {
    title: "64 neurons, one a line: weights and levels",
    height: rows.length * ROW + 56,
    margin: { left: 12, right: 12 },
    x: { domain: [-REACH, REACH], ticks: [-1, -0.5, 0, 0.5, 1], format: (v) => v.toFixed(1).replace("-", "−"), title: "weight" },
    y: { domain: [rows.length, 0], ticks: [] },
    legend: [["level", "level"], ["matrix", "weight"]],
  });
  const levels = plot.line("level");
  const band = plot.line("level-band");
  const dots = plot.line("matrix");
  const furthest = Math.min(...rows[0]);
  const note = element("p", "quiet", `The first line has one more weight, far out to the left, at ${furthest.toFixed(2).replace("-", "−")}.`);
  parent.append(note);
  return ({ bits, granularity, grids, mse }) => {
    plot.show(() => {
      const middle = (i) => plot.py(i + 0.5);
      let ticks = "";
      let bands = "";
      grids.forEach((grid, i) => {
        const [first, second] = [grid.quantMin, grid.quantMin + 1].map((code) => plot.px(dequantize(code, grid)));
        if (second - first < CLOSEST) {
          bands += plot.through([dequantize(grid.quantMin, grid), dequantize(grid.quantMax, grid)], [i + 0.5, i + 0.5]);
          return;
        }
        for (let code = grid.quantMin; code <= grid.quantMax; code++) {
          const x = dequantize(code, grid);
          if (Math.abs(x) < REACH) ticks += `M${plot.px(x).toFixed(1)} ${(middle(i) - ROW / 2).toFixed(1)}v${ROW}`;
        }
      });
      levels.setAttribute("d", ticks);
      band.setAttribute("d", bands);
      dots.setAttribute(
        "d",
        rows
          .map((row, i) => Array.from(row, (w) => (Math.abs(w) < REACH ? `M${plot.px(w).toFixed(1)} ${middle(i).toFixed(1)}h0` : "")).join(""))
          .join(""),
      );
    });
    const words = granularity === "per_tensor" ? "all lines share the same levels" : "each line has levels of its own, as far as its largest weight";
    plot.describe(`64 lines of weights. At ${bits} bits ${words}; the mean squared error is ${error(mse)}.`);
  };
}

function sentence(parent) {
  const say = spoken(parent);
  return ({ bits, granularity, zeros, count, mse }) =>
    say(
      granularity === "per_tensor"
        ? `Per tensor, the weight at the far left sets the scale for all: at ${bits} bits ${Math.round((100 * zeros) / count)}% of the weights become 0.`
        : `Per channel, only its own row pays for that weight: the mean squared error is ${error(mse)}.`,
    );
}

function table(parent, rows) {
  const columns = ["Bits", "MSE per tensor", "MSE per channel", "zeros per tensor", "zeros per channel"];
  numbersTable(parent, "Both granularities", columns)(() =>
    BITS.map((bits) => {
      const [tensor, channel] = ["per_tensor", "per_channel"].map((granularity) => rounded(rows, { bits, granularity }));
      return [String(bits), error(tensor.mse), error(channel.mse), String(tensor.zeros), String(channel.zeros)];
    }),
  );
}

function error(mse) {
  return mse >= 0.001 ? mse.toPrecision(2) : mse.toFixed(6);
}
