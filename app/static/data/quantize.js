/**
 * The arithmetic of qat_core in the browser: affine.py, ste.py and lsq.py, the same formulas under the same names.
 *
 * Numbers are float32: every operation is rounded by Math.fround, so the page and PyTorch agree to the last bit.
 * A grid is { scale, zeroPoint, quantMin, quantMax, shift }: a spec together with what qparamsOfRange gives.
 *
 * Sources: Jacob et al. 2018, equation 1; Bengio et al. 2013, section 4; Esser et al. 2020, equations 3 and 5.
 */

const f32 = Math.fround;
const ALL_WHOLE = 2 ** 23; // from here up a float32 has no fraction

export const TERNARY_BITS = 1.58;
export const SMALLEST_SCALE = 2 ** -60;

/** What QuantSpec says about codes: how many there are, the smallest, the largest, and the shift of the levels. */
export function quantSpec(bits, { symmetric = true, halfShift = false } = {}) {
  const levels = bits === TERNARY_BITS ? 3 : 2 ** bits;
  const quantMin = symmetric ? -Math.floor(levels / 2) : 0;
  return { bits, symmetric, levels, quantMin, quantMax: quantMin + levels - 1, shift: halfShift ? 0.5 : 0 };
}

/** The code of x: clamp(round(x / scale - shift) + zeroPoint, quantMin, quantMax). */
export function quantize(x, grid) {
  return Math.min(Math.max(roundToCodes(x, grid), grid.quantMin), grid.quantMax);
}

/** `quantize` before its clamp: the code on a grid without ends. */
export function roundToCodes(x, { scale, zeroPoint, shift }) {
  return f32(roundHalfToEven(f32(f32(x / scale) - shift)) + zeroPoint);
}

/** The real number that a code stands for: (code - zeroPoint + shift) * scale. */
export function dequantize(code, { scale, zeroPoint, shift }) {
  return f32(f32(f32(code - zeroPoint) + shift) * scale);
}

/** The point of the grid that stands for x. */
export function fakeQuantize(x, grid) {
  return dequantize(quantize(x, grid), grid);
}

/** Scale and zero point that cover all values. @param {Iterable<number>} values that share them */
export function minmaxQparams(values, spec) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return qparamsOfRange(low, high, spec);
}

/** Scale and zero point of a range: symmetric from its larger magnitude, otherwise from its ends and 0. */
export function qparamsOfRange(low, high, { symmetric, quantMax, shift }) {
  if (symmetric) return { scale: atLeastSmallest(f32(Math.max(-low, high) / (quantMax + shift))), zeroPoint: 0 };
  const from = Math.min(low, 0);
  const scale = atLeastSmallest(f32(f32(Math.max(high, 0) - from) / quantMax)); // quantMin is 0
  return { scale, zeroPoint: roundHalfToEven(f32(-from / scale)) };
}

/** The gradient for x by the straight-through estimator: gradY where the code was not clamped, otherwise 0. */
export function steGradient(gradY, x, grid) {
  return whereNotClamped(gradY, roundToCodes(x, grid), grid);
}

export function whereNotClamped(grad, unclamped, { quantMin, quantMax }) {
  return unclamped >= quantMin && unclamped <= quantMax ? grad : 0;
}

/** One element's share of the learned scale's gradient, times the scale: dL/dy * (y - x), or dL/dy * y where clamped. */
export function lsqSlope(gradY, x, grid) {
  return f32(f32(gradY * fakeQuantize(x, grid)) - f32(steGradient(gradY, x, grid) * x));
}

/** The gradient for a scale that all elements share. */
export function lsqScaleGradient(gradY, x, grid) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += lsqSlope(gradY[i], x[i], grid);
  return f32(f32(f32(sum) / grid.scale) * f32(gradientFactor(x.length, grid.quantMax)));
}

/** 1 / sqrt(N * quantMax), N elements to a scale: Esser et al. 2020, section 2.2. */
export function gradientFactor(elements, quantMax) {
  return 1 / Math.sqrt(elements * Math.max(quantMax, 1));
}

/** x as bfloat16 keeps it: the upper half of a float32, rounded half to even. */
export function toBfloat16(x) {
  const bits = new Uint32Array(new Float32Array([x]).buffer);
  bits[0] += 0x7fff + ((bits[0] >>> 16) & 1);
  bits[0] &= 0xffff0000;
  return new Float32Array(bits.buffer)[0];
}

export function roundHalfToEven(x) {
  if (Math.abs(x) >= ALL_WHOLE) return x;
  const below = Math.floor(x);
  const rest = x - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

function atLeastSmallest(scale) {
  return Math.max(scale, SMALLEST_SCALE);
}
