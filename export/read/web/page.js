/** The page that is handed on with a model: onnxruntime lies in it, and it says of a file what `check` says. */

import { check, general, worst } from "./check.js";

const zone = document.querySelector("label");
const input = document.querySelector("input");
let runtime = null;
let queue = Promise.resolve();

zone.addEventListener("dragover", (event) => {
  event.preventDefault();
  zone.classList.add("over");
});
zone.addEventListener("dragleave", () => zone.classList.remove("over"));
zone.addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  take(event.dataTransfer.files);
});
input.addEventListener("change", () => {
  take(input.files);
  input.value = ""; // the same file may be asked again
});

/** One after the other, the newest on top. */
function take(files) {
  for (const file of files) queue = queue.then(() => examine(file));
}

async function examine(file) {
  const box = node("article");
  const words = node("p", "", "Reading.");
  box.append(node("h2", "", file.name), words);
  document.querySelector("main").prepend(box);
  const now = async (text) => {
    words.textContent = text;
    await new Promise((drawn) => setTimeout(drawn));
  };
  try {
    await now("Starting onnxruntime.");
    runtime ??= await start();
    const bytes = new Uint8Array(await file.arrayBuffer());
    const before = (level) => now(`Recomputing the receipt, optimization level ${level}.`);
    const report = await check(runtime, runtime.env.versions.web, bytes, before);
    show(box, words, report);
  } catch (error) {
    box.className = "broken";
    words.textContent = `${error.message}.`;
  }
}

function show(box, words, report) {
  const rewritten = `rewritten, answers kept (${report.rewritten}),`;
  const verdict = !report.holds ? "the receipt does NOT hold" : report.rewritten ? rewritten : "the receipt holds";
  words.textContent = `${verdict} in this browser (tolerance ${general(report.tolerance, 3)})`;
  box.className = report.holds ? "holds" : "broken";
  box.append(node("p", "", report.verdict));
  if (!report.holds) {
    const { beyond_tolerance: count, outputs, level, max_abs_diff: furthest } = worst(report.levels);
    const how = furthest < Infinity ? `by up to ${general(furthest, 3)}` : "how far is not known";
    const sentences = [...report.unmet, `${count} of ${outputs} outputs differ at level ${level}, ${how}`];
    box.append(...sentences.map((sentence) => node("p", "", sentence)));
  }
  box.append(table(report.levels), node("p", "quiet", made(report.receipt)));
}

function table(levels) {
  const columns = ["optimization level", "max |diff|", "ulps", "mean |diff|", "off", "outputs"];
  const [scroll, found] = [node("div", "scroll"), node("table")];
  Object.assign(scroll, { tabIndex: 0, role: "region", ariaLabel: "Optimization levels" }); // what scrolls is reached with the keyboard
  found.createTHead().insertRow().append(...columns.map((name) => node("th", "", name)));
  const body = found.createTBody();
  for (const { level, max_abs_diff, max_ulps, mean_abs_diff, beyond_tolerance, outputs } of levels) {
    const cells = [level, general(max_abs_diff, 3), general(max_ulps, 2), general(mean_abs_diff, 3), beyond_tolerance, outputs];
    body.insertRow().append(...cells.map((text) => node("td", "", String(text))));
  }
  scroll.append(found);
  return scroll;
}

function made({ versions, requires, settings }) {
  const listed = (found) => Object.entries(found).map((entry) => entry.join(" ")).join(", ");
  return `Made by ${listed(versions)}; flavor ${settings.flavor}, opset ${settings.opset_version}. Needs ${listed(requires)}.`;
}

async function start() {
  const ort = await import(`data:text/javascript;base64,${embedded("ort")}`);
  const packed = await (await fetch(`data:application/gzip;base64,${embedded("wasm")}`)).blob();
  const binary = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  Object.assign(ort.env, { logLevel: "fatal" });
  Object.assign(ort.env.wasm, { wasmBinary: binary, numThreads: 1 });
  return ort;
}

function embedded(id) {
  return document.getElementById(id).textContent;
}

function node(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
