/** onnxruntime for browsers from the server of this page, once, and the modules that check a receipt with it. */

let loaded = null;

/**
 * @param {{ checker: string, ort: string, wasm: string }} paths  on the server
 * @param {AbortSignal} signal  @param {(received: number) => void} tell  how many bytes are here
 * @param {Uint8Array} file  any that onnxruntime can load: the first session starts all of it
 * @returns {Promise<{ ort: object, checker: object, seconds: number }>}  which it took
 */
export async function load(paths, signal, tell, file) {
  loaded ??= await fetched(paths, signal, tell, file);
  signal.throwIfAborted();
  return loaded;
}

async function fetched(paths, signal, tell, file) {
  const started = performance.now();
  const modules = [import(at(paths.ort)), import(at(paths.checker))];
  const [binary, ort, checker] = await Promise.all([unpacked(at(paths.wasm), signal, tell), ...modules]);
  Object.assign(ort.env, { logLevel: "fatal" });
  Object.assign(ort.env.wasm, { wasmBinary: binary, numThreads: 1 });
  const first = await checker.session(ort, file);
  await first.release();
  return { ort, checker, seconds: (performance.now() - started) / 1000 };
}

function at(path) {
  return new URL(`gradio_api/file=${path}`, document.baseURI);
}

/** A gzipped file, unpacked on its way. @returns {Promise<ArrayBuffer>} */
async function unpacked(address, signal, tell) {
  const response = await fetch(address, { signal });
  if (!response.ok) throw new Error(`the server answers ${response.status} to ${address.pathname.split("/").pop()}`);
  let received = 0;
  const counted = new TransformStream({
    transform(chunk, controller) {
      received += chunk.length;
      tell(received);
      controller.enqueue(chunk);
    },
  });
  const stream = response.body.pipeThrough(counted).pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
