/** The 64 x 64 matrix of the trained FP32 network: the page's own, written by `python -m app.lab.pretrained`. */

import { kept } from "./kept.js";

const LAYER = "2.weight"; // (out, in): from the first hidden layer to the second
let loading = null;

/** @returns {Promise<Float32Array[]>} one row of weights for each output channel */
export function loadWeights() {
  loading ??= load().catch((error) => {
    loading = null; // so that it can be tried again
    throw error;
  });
  return loading;
}

async function load() {
  const { parameters } = await kept("pretrained.json", "the weights of the trained network");
  return rowsOf(parameters[LAYER]);
}

function rowsOf({ shape: [rows, columns], float32 }) {
  const bytes = Uint8Array.from(atob(float32), (letter) => letter.charCodeAt(0));
  const values = new Float32Array(bytes.buffer);
  return Array.from({ length: rows }, (_, i) => values.subarray(i * columns, (i + 1) * columns));
}
