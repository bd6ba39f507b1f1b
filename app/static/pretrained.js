/** The 64 x 64 matrix of the trained FP32 network: the page's own, written by `python -m app.lab.pretrained`. */

const LAYER = "2.weight"; // (out, in): from the first hidden layer to the second
let loading = null;

/** @returns {Promise<Float32Array[]>} one row of weights for each output channel */
export function loadWeights() {
  loading ??= fetch(new URL("pretrained.json", import.meta.url))
    .then((answer) => answer.json())
    .then(({ parameters }) => rowsOf(parameters[LAYER]));
  return loading;
}

function rowsOf({ shape: [rows, columns], float32 }) {
  const bytes = Uint8Array.from(atob(float32), (letter) => letter.charCodeAt(0));
  const values = new Float32Array(bytes.buffer);
  return Array.from({ length: rows }, (_, i) => values.subarray(i * columns, (i + 1) * columns));
}
