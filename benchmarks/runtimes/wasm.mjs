/**
 * Files on onnxruntime's build for browsers, in Node.js, a line each: `node wasm.mjs FOLDER FIRST RUNTIME`, where RUNTIME is
 * the folder of `export.read.web.runtime`. What answers.py does, without prepacked weights as well.
 */

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";
import { LEVELS, answer, check } from "../../export/read/web/check.js";
import { fromBase64 } from "../../export/read/web/sample.js";

const BATCHES = [1, 64, 256];
const TOLERANCE = 1e-5;
const [folder, first, runtime] = process.argv.slice(2);
const ort = await import(pathToFileURL(join(runtime, "ort.mjs")));
Object.assign(ort.env, { logLevel: "fatal" });
Object.assign(ort.env.wasm, { wasmBinary: gunzipSync(readFileSync(join(runtime, "ort.wasm.gz"))), numThreads: 1 });

const names = readdirSync(folder).filter((name) => name.endsWith(".onnx")).map((name) => name.slice(0, -5)).sort();
for (const name of names.slice(Number(first))) {
  const bytes = new Uint8Array(readFileSync(join(folder, `${name}.onnx`)));
  const { x, y } = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf-8"));
  const known = [fromBase64(x), fromBase64(y)];
  const found = { receipt: await receipt(bytes), answers: await worst(bytes, known, "0"), unpacked: await worst(bytes, known, "1") };
  console.log(JSON.stringify({ file: name, ...found }));
}

/** holds, or why it does not. */
async function receipt(bytes) {
  try {
    const { holds, verdict, unmet } = await check(ort, ort.env.versions.web, bytes);
    return holds ? "holds" : [verdict, ...unmet].join("; ");
  } catch (error) {
    return said(error);
  }
}

/** The furthest answer from PyTorch's in parts of their range, and the largest share beyond the tolerance. */
async function worst(bytes, [x, y], withoutPrepacking) {
  const ends = [...y.data.map(Number), 0];
  const spread = ends.reduce((a, b) => Math.max(a, b)) - ends.reduce((a, b) => Math.min(a, b)) || 1;
  let [furthest, share] = [0, 0];
  try {
    for (const graphOptimizationLevel of Object.values(LEVELS)) {
      for (const enableCpuMemArena of [true, false]) {
        const extra = { session: { disable_prepacking: withoutPrepacking } };
        const session = await ort.InferenceSession.create(bytes, { graphOptimizationLevel, enableCpuMemArena, extra, logSeverityLevel: 4 });
        for (const rows of BATCHES) {
          const [found] = await answer(ort, session, [someRows(x, rows)]);
          const expected = someRows(y, rows).data;
          const off = Array.from(found.data, (value, i) => Math.abs(Number(value) - Number(expected[i])));
          furthest = off.reduce((a, b) => Math.max(a, Number.isNaN(b) ? Infinity : b), furthest * spread) / spread;
          share = Math.max(share, off.filter((d) => !(d <= TOLERANCE * spread)).length / off.length);
        }
        await session.release();
      }
    }
  } catch (error) {
    return { failed: said(error) };
  }
  return { distance: furthest, share };
}

function someRows({ dtype, shape: [all, ...row], data }, rows) {
  return { dtype, shape: [rows, ...row], data: data.slice(0, (data.length / all) * rows) };
}

/** A build that has crashed answers nothing any more: the next file needs a new process. */
function said(error) {
  if (error instanceof WebAssembly.RuntimeError) process.exit(1);
  return String(error.message ?? error).split("\n")[0];
}
