/** The staircase of a grid as paths, and the straight line that it follows. */

import { dequantize } from "../data/quantize.js";

/** The edges between the codes of a grid, where round() jumps, and the two ends where the clamp sets in. */
export function edges({ quantMin, quantMax, scale, zeroPoint }) {
  return Array.from({ length: quantMax - quantMin + 2 }, (_, i) => (quantMin + i - 0.5 - zeroPoint) * scale);
}

/** SVG path of the stairs across a plot. */
export function stairs(plot, grid) {
  const [first, ...later] = edges(grid).slice(0, -1);
  const level = (code) => plot.py(dequantize(code, grid)).toFixed(1);
  const risers = later.map((edge, i) => `H${plot.px(edge).toFixed(1)}V${level(grid.quantMin + i + 1)}`);
  return `M${plot.px(Math.min(first, plot.x.domain[0]))} ${level(grid.quantMin)}${risers.join("")}H${plot.px(plot.x.domain[1])}`;
}

/** SVG path of the ramp: the line y = x where nothing is clamped, flat beyond. */
export function ramp(plot, grid) {
  const ends = edges(grid);
  const [low, high] = [ends[0], ends[ends.length - 1]];
  const [left, right] = plot.x.domain;
  return plot.through([left, low, high, right], [low, low, high, high]);
}
