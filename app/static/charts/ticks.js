/** The numbers beside the axes of a chart. */

import { minus, signed } from "../widgets/format.js";

/** Three digits for an axis; what is small would not fit beside it as a decimal. */
export function tick(value) {
  const short = Number(value.toPrecision(3));
  return minus(short !== 0 && Math.abs(short) < 1e-3 ? short.toExponential() : String(short));
}

/** A multiple of the scale for an axis: all have as many digits after the point as it takes to tell two apart. */
export function multiple(value, scale) {
  return signed(value, Math.max(0, 1 - Math.floor(Math.log10(scale))));
}

/** A domain with four or five round ticks that holds both ends. */
export function nice(low, high) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / 4));
  const step = [1, 2, 5, 10].map((m) => m * power).find((width) => span / width <= 5);
  const [first, last] = [Math.floor(low / step), Math.ceil(high / step) || 1];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
  return { domain: [ticks[0], ticks.at(-1)], ticks };
}
