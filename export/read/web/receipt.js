/** The receipt of a file: is it whole, and is the file the one that it was written for? */

import { FileError, codeTensors, looksUpCodes } from "./onnx.js";
import { sortedJson } from "./python_json.js";
import { sha256 } from "./sha256.js";

const KEY = "qat_receipt";
const FORMAT = 5;

/** The file does not keep its receipt, or has none; the message says which. */
export class ReceiptError extends Error {}

export function readReceipt({ metadata }) {
  const text = metadata.get(KEY);
  if (text === undefined) throw new ReceiptError("the file has no receipt: it was not made by export_onnx, or its metadata was removed");
  let receipt;
  try {
    receipt = JSON.parse(text);
  } catch (error) {
    throw new ReceiptError(`the receipt cannot be understood: ${error.message}`);
  }
  if (receipt?.format !== FORMAT) {
    const found = `the receipt has format ${JSON.stringify(receipt?.format)}; expected ${FORMAT}`;
    throw new ReceiptError(`${found} (python -m export check reads older ones, too)`);
  }
  const found = sha256(sortedJson(text, "sha256"));
  if (found !== receipt.sha256) {
    throw new ReceiptError(`the receipt was changed: its SHA-256 is ${found.slice(0, 12)}..., it says '${String(receipt.sha256).slice(0, 12)}...`);
  }
  return receipt;
}

/** What of the file is no longer as it was when the receipt was written; nothing if it is. */
export function changed(model, receipt) {
  const graph = (sentence) => differs(sentence, hashGraph(model), receipt.graph_sha256);
  if (looksUpCodes(model.graph)) return graph("something was changed, a code, a scale, a bias or an operator");
  return (
    differs("the integer codes were changed", hashCodes(model.graph), receipt.codes_sha256) ||
    graph("something beside the codes was changed, a scale, a bias or an operator")
  );
}

function differs(sentence, found, promised) {
  if (found === promised) return "";
  return `${sentence}: the SHA-256 is ${found.slice(0, 12)}..., the receipt says ${String(promised).slice(0, 12)}...`;
}

/** Over names, shapes and values of integer codes, by name. */
function hashCodes(graph) {
  const parts = byName(codeTensors(graph)).flatMap(({ name, shape, codes }) => [`${name}${tuple(shape)}`, bytesOf(codes)]);
  return sha256(...parts);
}

/** Over all that decides an answer: operators, tensors by value, inputs, outputs and operator sets. */
function hashGraph({ graph, others }) {
  const tensors = byName(graph.tensors).flatMap(({ name, type, dims, data }) => [`${name}${type}[${dims.join(", ")}]`, data]);
  const parts = [...graph.nodes.map((node) => node.bytes), ...graph.inputs, ...graph.outputs, ...others];
  return sha256(...tensors, ...parts.sort(byBytes));
}

function byName(tensors) {
  return [...tensors].sort((a, b) => byBytes(new TextEncoder().encode(a.name), new TextEncoder().encode(b.name)));
}

function byBytes(a, b) {
  for (let i = 0; i < a.length && i < b.length; i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

/** As Python writes it. */
function tuple(shape) {
  return shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
}

function bytesOf({ buffer, byteOffset, byteLength }) {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Refuse a file before onnxruntime does. @throws {FileError} */
export function refuseIfTooOld({ requires }, version) {
  const wanted = requires?.onnxruntime ?? "0";
  const [found, needed] = [version, wanted].map((text) => text.match(/\d+/g).slice(0, 2).map(Number));
  const older = found[0] < needed[0] || (found[0] === needed[0] && found[1] < needed[1]);
  if (older) throw new FileError(`this file needs onnxruntime ${wanted} or newer; this is ${version}`);
}
