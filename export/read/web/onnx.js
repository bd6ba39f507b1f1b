/** What a check needs of an ONNX file, read from its bytes: operators, tensors, metadata. */

const INTEGER_BITS = { 26: 2, 25: 2, 22: 4, 21: 4, 3: 8, 2: 8, 5: 16, 4: 16, 6: 32, 7: 64 }; // by ONNX's data type
const UNSIGNED = new Set([25, 21, 2, 4]);
const BYTES = { 1: 4, 10: 2, 16: 2, 11: 8, 9: 1, 3: 1, 2: 1, 5: 2, 4: 2, 6: 4, 7: 8, 21: 1, 22: 1, 25: 1, 26: 1 }; // of an entry
const WIRE = { varint: 0, eight: 1, bytes: 2, four: 5 };
const EXTERNAL = 1;
const [FLOAT, INT32] = [1, 6]; // ONNX's data types

/** The file is no model that can be checked here; the message says why. */
export class FileError extends Error {}

/**
 * @typedef {{ name: string, type: number, dims: number[], data: Uint8Array }} Tensor
 * @typedef {{ bytes: Uint8Array, opType: string, inputs: string[], outputs: string[], numbers: Map<string, number>, graphs: Graph[] }} Node
 * @typedef {{ nodes: Node[], tensors: Tensor[], inputs: Uint8Array[], outputs: Uint8Array[] }} Graph
 */

/** @param {Uint8Array} bytes  @returns {{ graph: Graph, metadata: Map<string, string>, others: Uint8Array[] }} */
export function readModel(bytes) {
  const model = { graph: null, metadata: new Map(), others: [] };
  try {
    for (const { field, value } of fields(bytes)) {
      if (field === 7) model.graph = readGraph(value);
      if (field === 8 || field === 25) model.others.push(value); // operator sets and functions
      if (field === 14) model.metadata.set(...pair(value));
    }
  } catch (error) {
    if (error instanceof FileError) throw error;
    throw new FileError(`this is not a whole ONNX file: ${bytes.length} bytes that cannot be decoded`);
  }
  if (!model.graph?.nodes.length) throw new FileError(`this is not an ONNX model: ${bytes.length} bytes without a graph`);
  return model;
}

function readGraph(bytes) {
  const graph = { nodes: [], tensors: [], inputs: [], outputs: [] };
  for (const { field, value } of fields(bytes)) {
    if (field === 1) graph.nodes.push(readNode(value));
    if (field === 5) graph.tensors.push(readTensor(value));
    if (field === 11) graph.inputs.push(value);
    if (field === 12) graph.outputs.push(value);
  }
  return graph;
}

function readNode(bytes) {
  const node = { bytes, opType: "", inputs: [], outputs: [], numbers: new Map(), graphs: [] };
  for (const { field, value } of fields(bytes)) {
    if (field === 1) node.inputs.push(text(value));
    if (field === 2) node.outputs.push(text(value));
    if (field === 4) node.opType = text(value);
    if (field === 5) readAttribute(value, node);
  }
  return node;
}

function readAttribute(bytes, node) {
  let name = "";
  let number = 0;
  for (const { field, value } of fields(bytes)) {
    if (field === 1) name = text(value);
    if (field === 3) number = Number(value);
    if (field === 6 || field === 11) node.graphs.push(readGraph(value));
  }
  node.numbers.set(name, number);
}

function readTensor(bytes) {
  const tensor = { name: "", type: 0, dims: [], data: new Uint8Array() };
  const entries = [];
  for (const { field, wire, value } of fields(bytes)) {
    if (field === 1) tensor.dims.push(...(wire === WIRE.bytes ? varints(value) : [value]).map(Number));
    if (field === 2) tensor.type = Number(value);
    if (field === 8) tensor.name = text(value);
    if (field === 9) tensor.data = value;
    if (field === 4 || field === 10) entries.push(value); // floats, doubles: little-endian already
    if (field === 5 || field === 7) entries.push(...(wire === WIRE.bytes ? varints(value) : [value]));
    if (field === 14 && Number(value) === EXTERNAL) throw new FileError("its tensors lie in a second file, which this page cannot see");
  }
  if (!tensor.data.length && entries.length) tensor.data = joined(entries, BYTES[tensor.type]);
  return tensor;
}

/** Entries of a tensor as they would lie in its raw data. */
function joined(entries, size) {
  if (entries[0] instanceof Uint8Array) return Uint8Array.from(entries.flatMap((part) => [...part]));
  const data = new Uint8Array(entries.length * size);
  entries.forEach((entry, i) => {
    for (let byte = 0; byte < size; byte++) data[i * size + byte] = Number((entry >> BigInt(8 * byte)) & 255n);
  });
  return data;
}

/** Every node of a graph, and of the graphs inside its nodes. */
function* everyNode(graph) {
  for (const node of graph.nodes) {
    yield node;
    for (const inside of node.graphs) yield* everyNode(inside);
  }
}

function* everyTensor(graph) {
  yield* graph.tensors;
  for (const node of graph.nodes) for (const inside of node.graphs) yield* everyTensor(inside);
}

/** Name, shape and codes of every quantized tensor, those of MatMulNBits and of tables in the shape of the weight. */
export function codeTensors(graph) {
  const tensors = new Map([...everyTensor(graph)].map((tensor) => [tensor.name, tensor]));
  const [found, readers, producers] = [new Map(), new Map(), new Map()];
  for (const node of everyNode(graph)) {
    for (const name of node.outputs) producers.set(name, node);
    for (const name of node.inputs) readers.set(name, [...(readers.get(name) ?? []), node]);
  }
  for (const node of everyNode(graph)) {
    const table = node.opType === "Gather" && !found.has(node.inputs[0]) && lookedUp(node, tensors, readers, producers);
    if (table) found.set(node.inputs[0], table);
    const place = { DequantizeLinear: 0, MatMulNBits: 1 }[node.opType];
    const tensor = tensors.get(node.inputs[place]);
    if (!tensor || found.has(tensor.name) || !(tensor.type in INTEGER_BITS)) continue;
    found.set(tensor.name, node.opType === "MatMulNBits" ? hidden(tensor, node) : declared(tensor));
  }
  return [...tensors.keys()].filter((name) => found.has(name)).map((name) => ({ name, ...found.get(name) }));
}

/** Are there tables whose rows are looked up before they become numbers? Which of their bytes are codes, only Python tells. */
export function looksUpCodes(graph) {
  const bytes = new Set([...everyTensor(graph)].filter(({ type }) => INTEGER_BITS[type] === 8).map(({ name }) => name));
  return [...everyNode(graph)].some(({ opType, inputs: [table] }) => opType === "Gather" && bytes.has(table));
}

function declared({ type, dims, data }) {
  const count = dims.reduce((product, size) => product * size, 1);
  return { shape: dims, codes: unpacked(data, INTEGER_BITS[type], !UNSIGNED.has(type), count) };
}

/** A table whose rows are codes first and numbers afterwards, as lookup.py reads it; null where a Gather is none. */
function lookedUp(gather, tensors, readers, producers) {
  const tensor = tensors.get(gather.inputs[0]);
  if (INTEGER_BITS[tensor?.type] !== 8 || tensor.dims.length < 2 || gather.numbers.get("axis")) return null;
  let last = gather;
  const passes = (opType, to) => {
    const behind = readers.get(last.outputs[0]) ?? [];
    if (behind.length !== 1 || behind[0].opType !== opType || (to && behind[0].numbers.get("to") !== to)) return false;
    if (behind[0].inputs[opType === "Gather" ? 1 : 0] !== last.outputs[0]) return false;
    last = behind[0];
    return true;
  };
  const keptColumns = () => {
    const [next] = readers.get(last.outputs[0]) ?? [];
    const numbers = next?.inputs.slice(1).map((name) => tensors.has(name) && unpacked(tensors.get(name).data, 64, true, 1)[0]);
    const isOurs = numbers?.length === 3 && numbers[0] === 0 && numbers[2] === -1; // a model's own is of rows
    return isOurs && passes("Slice") ? numbers[1] : null;
  };
  const source = (name) => (producers.has(name) ? source(producers.get(name).inputs[0]) : tensors.get(name));
  const shape = [...tensor.dims];
  let [bits, signed] = [8, !UNSIGNED.has(tensor.type)];
  if (passes("Cast", INT32)) {
    const table = passes("Gather") && tensors.get(last.inputs[0]);
    if (!table || !passes("Reshape")) return null;
    const together = table.dims[1];
    [bits, signed] = [8 / together, table.data[255 * together] > 127];
    shape[shape.length - 1] *= together;
  }
  if (!passes("Cast", FLOAT)) return null;
  passes("Sub");
  passes("Add");
  if (!passes("Mul") || !source(last.inputs[1]) || (shape.length === 3 && !passes("Reshape"))) return null;
  const wide = shape.slice(1).reduce((product, size) => product * size, 1);
  const columns = keptColumns() ?? wide;
  const codes = unpacked(tensor.data, bits, signed, shape[0] * wide);
  if (columns === wide && shape.length === 2) return { shape, codes };
  return { shape: [shape[0], columns], codes: codes.filter((_, i) => i % wide < columns) };
}

/** Blocks of each row are filled up; without zero points codes count from the middle. */
function hidden({ data }, { numbers, inputs }) {
  const [rows, columns] = [numbers.get("N"), numbers.get("K")];
  const bits = numbers.get("bits") ?? 4;
  const all = unpacked(data, bits, false, (data.length * 8) / bits);
  const wide = all.length / rows;
  const origin = inputs[3] ? 0 : 2 ** (bits - 1);
  return { shape: [rows, columns], codes: all.filter((_, i) => i % wide < columns).map((code) => code - origin) };
}

/** Integers out of bytes, lowest bits first. @returns {Int32Array} */
function unpacked(data, bits, signed, count) {
  const codes = new Int32Array(count);
  const sign = signed ? 2 ** (bits - 1) : 0;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let i = 0; i < count; i++) {
    if (bits <= 8) codes[i] = (((data[(i * bits) >> 3] >> ((i * bits) & 7)) & (2 ** bits - 1)) ^ sign) - sign;
    else if (bits === 16) codes[i] = signed ? view.getInt16(2 * i, true) : view.getUint16(2 * i, true);
    else codes[i] = view.getInt32((bits / 8) * i, true);
  }
  return codes;
}

function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      if (at >= bytes.length) throw new RangeError("cut off");
      const byte = bytes[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return BigInt.asIntN(64, value);
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const [field, wire] = [Math.floor(key / 8), key % 8];
    if (wire === WIRE.varint) {
      yield { field, wire, value: varint() };
      continue;
    }
    const size = { [WIRE.eight]: 8, [WIRE.four]: 4 }[wire] ?? (wire === WIRE.bytes ? Number(varint()) : NaN);
    if (!(size >= 0 && at + size <= bytes.length)) throw new RangeError("cut off");
    yield { field, wire, value: bytes.subarray(at, (at += size)) };
  }
}

function varints(bytes) {
  const found = [];
  let value = 0n;
  let shift = 0n;
  for (const byte of bytes) {
    value |= BigInt(byte & 127) << shift;
    shift += 7n;
    if (byte < 128) {
      found.push(BigInt.asIntN(64, value));
      [value, shift] = [0n, 0n];
    }
  }
  return found;
}

function pair(bytes) {
  const found = ["", ""];
  for (const { field, value } of fields(bytes)) found[field - 1] = text(value);
  return found;
}

function text(bytes) {
  return new TextDecoder().decode(bytes);
}
