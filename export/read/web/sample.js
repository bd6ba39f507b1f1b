/** What a receipt asks and promises, made again as `sample.py` describes it. */

import { sha256 } from "./sha256.js";

const GOLDEN = 0x9e3779b9;
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int64: BigInt64Array, uint64: BigUint64Array, int32: Int32Array, uint32: Uint32Array,
  int16: Int16Array, uint16: Uint16Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};

/**
 * @typedef {{ dtype: string, shape: number[], data: ArrayLike<number | bigint> }} Numbers
 * @typedef {{ inputs: Numbers[], outputs: Promise[] }} Sample
 * @typedef {{ stored: Numbers, places: number[], shape: number[], sha256: string }} Promise
 */

/** @returns {Sample} */
export function sampleOf({ inputs, outputs }) {
  return { inputs: inputs.map((entry) => ("low" in entry ? pattern(entry) : fromBase64(entry))), outputs: outputs.map(promised) };
}

function promised(entry) {
  const stored = fromBase64(entry);
  const places = spread(elements(entry.answer), stored.data.length);
  return { stored, places, shape: entry.answer, sha256: entry.sha256 ?? "" };
}

/**
 * How far an answer lies from each number that was promised, infinite where a hash says that something is wrong and not
 * how much. An answer that has its hash is right everywhere.
 */
export function distances({ dims, data, type }, { stored, places, shape, sha256: known }) {
  if (String(dims) !== String(shape)) throw new RangeError(`onnxruntime answers in the shape [${dims}], expected [${shape}]`);
  const found = places.map((place, i) => apart(Number(data[place]), Number(stored.data[i]), data[place] === stored.data[i], stored.dtype));
  if (!known) return found;
  const all = new Array(data.length).fill(0);
  if (digest(data, type) === known) return all;
  places.forEach((place, i) => (all[place] = found[i]));
  const other = all.findIndex((_, place) => !places.includes(place));
  if (other >= 0) all[other] = Infinity;
  return all;
}

function apart(answer, expected, equal, dtype) {
  if (equal || answer === expected) return 0;
  const distance = Math.abs(answer - expected);
  if (Number.isNaN(distance)) return Infinity;
  return dtype.startsWith("float") ? distance : Math.max(distance, 1);
}

/** SHA-256 of an output's numbers; -0 counts as 0. */
export function digest(data, dtype) {
  const plain = dtype.startsWith("float") ? data.map((value) => value + 0) : data;
  return sha256(new Uint8Array(plain.buffer, plain.byteOffset, plain.byteLength));
}

/** Whole numbers below 2^32, as many as wanted. */
export function scatter(count, seed) {
  const start = Math.imul(GOLDEN, seed);
  return Uint32Array.from({ length: count }, (_, k) => {
    let u = (k + start) >>> 0;
    u = Math.imul(u ^ (u >>> 16), 0x21f0aaad);
    u = Math.imul(u ^ (u >>> 15), 0x735a2d97);
    return u ^ (u >>> 15);
  });
}

/** Which of so many numbers are stored: one of each part, in `count` parts. */
function spread(size, count) {
  if (count > size) throw new RangeError(`${count} of ${size} numbers; expected at most as many`);
  const end = (i) => Math.floor((i * size) / Math.max(count, 1));
  return Array.from(scatter(count, 0), (hash, i) => end(i) + (hash % Math.max(end(i + 1) - end(i), 1)));
}

/** @returns {Numbers} */
export function pattern({ dtype, shape, low, high, seed }) {
  const hashes = scatter(elements(shape), seed);
  const width = Math.fround(high - low);
  const real = (u) => low + (width * (u >>> 8)) / 2 ** 24;
  const whole = (u) => low + (u % (high - low + 1));
  const data = arrayOf(dtype)(hashes.length);
  const cast = dtype.endsWith("64") && !dtype.startsWith("float") ? BigInt : Number;
  hashes.forEach((u, k) => (data[k] = cast(dtype.startsWith("float") ? real(u) : whole(u))));
  return { dtype, shape, data };
}

/** @returns {Numbers} */
export function fromBase64({ dtype, shape, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = arrayOf(dtype)(bytes.buffer);
  if (data.length !== elements(shape)) throw new RangeError(`${data.length} numbers in the shape [${shape}]`);
  return { dtype, shape, data };
}

function arrayOf(dtype) {
  if (!(dtype in ARRAYS)) throw new RangeError(`numbers of the type ${dtype}, which this page does not read`);
  return (given) => new ARRAYS[dtype](given);
}

function elements(shape) {
  return shape.reduce((product, size) => product * size, 1);
}
