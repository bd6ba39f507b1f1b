/** Recompute a file's receipt with the onnxruntime that is given: what `python -m export check` does, without Python. */

import { FileError, readModel } from "./onnx.js";
import { ReceiptError, changed, readReceipt, refuseIfTooOld } from "./receipt.js";
import { distances, sampleOf } from "./sample.js";

export const LEVELS = { disable_all: "disabled", basic: "basic", extended: "extended", all: "all" };

/**
 * @typedef {{ level: string, max_abs_diff: number, mean_abs_diff: number, beyond_tolerance: number, outputs: number,
 *             max_ulps: number, change: number }} Level
 * @typedef {{ levels: Level[], outcome: string, tolerance: number, verdict: string, rewritten: string, unmet: string[],
 *             holds: boolean, receipt: object }} Report
 * @param {object} ort  onnxruntime-web or onnxruntime-node  @param {string} version  its own
 * @param {Uint8Array} bytes  the file
 * @param {(level: string) => unknown} before  each level; may return what is to be waited for
 * @returns {Promise<Report>}
 * @throws {FileError | ReceiptError} with a sentence
 */
export async function check(ort, version, bytes, before = () => {}) {
  const model = readModel(bytes);
  const receipt = readReceipt(model);
  refuseIfTooOld(receipt, version);
  const difference = changed(model, receipt);
  const samples = understood(receipt);
  const levels = [];
  try {
    for (const level of Object.keys(LEVELS)) {
      await before(level);
      levels.push(await atLevel(ort, bytes, level, samples, receipt.tolerances));
    }
  } catch (error) {
    if (difference) throw new ReceiptError(`${difference}: ${error.message}`);
    throw error;
  }
  const outcome = outcomeOf(levels, receipt.ties);
  if (outcome === "broken" && difference) throw new ReceiptError(difference);
  const unmet = outcome === "broken" ? notHere(receipt) : [];
  return {
    levels, outcome, unmet, receipt,
    tolerance: Math.max(...receipt.tolerances),
    verdict: verdictOf(levels, outcome),
    rewritten: difference,
    holds: outcome !== "broken",
  };
}

/** A session at a level of graph optimization. @throws {FileError} */
export async function session(ort, bytes, level = "all") {
  try {
    const provider = ort.env.versions.web ? "wasm" : "cpu";
    const options = { executionProviders: [provider], intraOpNumThreads: 1, logSeverityLevel: 4 };
    return await ort.InferenceSession.create(bytes, { ...options, graphOptimizationLevel: LEVELS[level] });
  } catch (error) {
    throw new FileError(`onnxruntime cannot load it: ${plain(error)}`);
  }
}

function understood(receipt) {
  try {
    const samples = receipt.samples.map(sampleOf);
    if (!samples.length) throw new RangeError("no sample; expected one or more");
    const counts = new Set([receipt.tolerances.length, ...samples.map(({ outputs }) => outputs.length)]);
    if (counts.size !== 1) throw new RangeError(`${[...counts]} outputs and tolerances; expected as many of each`);
    if (![...receipt.tolerances, receipt.ties.numbers, receipt.ties.distance].every((t) => t >= 0 && t < Infinity)) {
      throw new RangeError(`tolerances ${receipt.tolerances}; expected finite ones`);
    }
    return samples;
  } catch (error) {
    throw new ReceiptError(`the receipt cannot be understood: ${error.message}`);
  }
}

async function atLevel(ort, bytes, level, samples, tolerances) {
  const running = await session(ort, bytes, level);
  const off = tolerances.map(() => []);
  try {
    for (const { inputs, outputs } of samples) {
      const answers = await answer(ort, running, inputs);
      outputs.forEach((promised, i) => off[i].push(...distances(answers[i], promised)));
    }
  } finally {
    await running.release();
  }
  const expected = tolerances.map((_, i) => samples.flatMap(({ outputs }) => Array.from(outputs[i].stored.data, Number)));
  return levelOf(level, off, expected, tolerances);
}

/** @param {{ dtype: string, shape: number[], data: object }[]} inputs  in the order of the graph's */
export async function answer(ort, running, inputs) {
  const named = running.inputNames.map((name, i) => [name, new ort.Tensor(inputs[i].dtype, inputs[i].data, inputs[i].shape)]);
  try {
    const found = await running.run(Object.fromEntries(named));
    return running.outputNames.map((name) => found[name]);
  } catch (error) {
    throw new FileError(`the file does not take its inputs: ${plain(error)}`);
  }
}

function levelOf(level, off, expected, tolerances) {
  const all = off.flat();
  const furthest = off.map((distances) => most(distances));
  return {
    level,
    max_abs_diff: most(furthest),
    mean_abs_diff: all.reduce((sum, d) => sum + d, 0) / (all.length || 1),
    beyond_tolerance: off.reduce((count, distances, i) => count + distances.filter((d) => d > tolerances[i]).length, 0),
    outputs: all.length,
    max_ulps: most(furthest.map((d, i) => d / ulp(expected[i]))),
    change: most(furthest.map((d, i) => d / range(expected[i]))),
  };
}

function outcomeOf(levels, ties) {
  if (levels.every((level) => level.max_abs_diff === 0)) return "exact";
  const within = ({ beyond_tolerance: count, max_abs_diff: distance }) => !count || (count <= ties.numbers && distance <= ties.distance);
  return levels.every(within) ? "rounding" : "broken";
}

/** @param {Level[]} levels */
export function worst(levels) {
  const order = (a, b) => b.beyond_tolerance - a.beyond_tolerance || b.max_abs_diff - a.max_abs_diff || 0;
  return [...levels].sort(order)[0];
}

function verdictOf(levels, outcome) {
  const { beyond_tolerance: count, outputs, level, change } = worst(levels);
  if (outcome === "exact") return `exact: ${outputs} outputs are equal bit for bit at every level`;
  if (outcome === "broken") return `broken: ${count} of ${outputs} outputs differ at level ${level}`;
  if (count) return `equal up to rounding ties: ${count} of ${outputs} outputs differ, by ${general(change, 2)} of their spread at most`;
  const ulps = general(most(levels.map(({ max_ulps: found }) => found)), 2);
  return `equal up to float rounding: ${ulps} ${ulps === "1" ? "ulp" : "ulps"} at most`;
}

/** What the file needs beyond a version, where its answers are wrong. */
function notHere({ requires }) {
  const { processor = "", session: setup = "" } = requires ?? {};
  const needs = [processor && `a processor with ${processor}`, setup && `a session with ${setup}`].filter(Boolean);
  return needs.length ? [`this file needs ${needs.join(" and ")}, which onnxruntime does not have here`] : [];
}

/** The distance to the next float32 at the largest magnitude among the values. */
function ulp(values) {
  const bits = new Uint32Array([0]);
  const float = new Float32Array(bits.buffer);
  float[0] = most(values.filter(Number.isFinite).map(Math.abs));
  const below = float[0];
  bits[0] += 1;
  return float[0] - below || 1;
}

/** Of the finite values and 0. */
function range(values) {
  const finite = values.filter(Number.isFinite);
  return most(finite) + most(finite.map((value) => -value)) || 1;
}

function most(values) {
  return values.reduce((a, b) => Math.max(a, b), 0);
}

/** What an error of onnxruntime says, without its codes and the place in its source. */
function plain(error) {
  const code = /.*(?:\[ONNXRuntimeError\] : \d+ : \w+ : |ERROR_CODE: \d+, ERROR_MESSAGE: )/;
  const place = /\/\S+\.(?:cc|h):\d+ \S.*?\) (?:const )?/;
  return String(error.message ?? error).split("\n")[0].replace(code, "").replace(place, "").trim();
}

/** A number with so many digits, as Python's format "g" writes it. */
export function general(value, digits) {
  if (!Number.isFinite(value) || value === 0) return value === Infinity ? "inf" : String(value);
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const trimmed = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  const power = Number(exponent);
  if (power >= -4 && power < digits) return trimmed(value.toFixed(digits - 1 - power));
  return `${trimmed(mantissa)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}
