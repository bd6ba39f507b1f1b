/** Chapter "onnxruntime": the file in the visitor's own browser. Nothing of onnxruntime is loaded before it is asked for. */

import { follow } from "../../static/data/follow.js";
import { chapterDone } from "../../static/page/done.js";
import { button, element } from "../../static/widgets/dom.js";
import { minus, powerOfTen, short } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { headCell, headed } from "../../static/widgets/table.js";
import { load } from "./load_runtime.js";

const FLAVORS = { qdq: "The file that Download gives", ort: "Its twin for quick kernels, flavour ort" };
const ANSWERS = 50;
const LARGEST = 3.4028234663852886e38; // of float32

export function mount(view, props, watch) {
  const say = spoken(view);
  const loading = element("div", "loading");
  const bar = element("progress");
  bar.setAttribute("aria-label", "Loading onnxruntime");
  let stop = new AbortController();
  let kept = []; // sessions
  loading.append(bar, button("Cancel", () => stop.abort(), "plain"));
  loading.hidden = true;
  const body = element("div");
  view.append(loading, body);

  follow(props, watch, (frame) => {
    stop.abort();
    stop = new AbortController();
    loading.hidden = true;
    body.replaceChildren();
    for (const session of kept) session.release();
    kept = [];
    say(frame.words, { patient: false, problem: Boolean(frame.problem) });
    if (frame.files) begin(frame, stop.signal);
  });

  async function begin(frame, signal) {
    const now = (words) => signal.aborted || say(words);
    loading.hidden = false;
    try {
      const received = (bytes) => {
        Object.assign(bar, { max: frame.bytes, value: bytes });
        now(`Loading onnxruntime: ${megabytes(bytes)} of ${megabytes(frame.bytes)} MB.`);
      };
      const { ort, checker, seconds } = await load(props, signal, received, bytesOf(frame.files[0]));
      const found = [];
      for (const file of frame.files) found.push(await examine(ort, checker, file, signal, now));
      signal.throwIfAborted();
      kept = found.flatMap(({ running }) => running ?? []);
      show(frame, ort, checker, found, seconds);
    } catch (error) {
      if (stop.signal !== signal) return; // another file is there by now
      if (signal.aborted) say("Cancelled. Nothing was checked.", { patient: false });
      else say(`This browser could not check the file: ${error.message}.`, { patient: false, problem: true });
    } finally {
      if (stop.signal === signal) loading.hidden = true;
    }
  }

  function show(frame, ort, checker, found, seconds) {
    const [{ report, problem }] = found;
    const holds = report?.holds;
    const recomputed = `${report?.levels[0].outputs} promised answers recomputed at four levels`;
    say(
      holds
        ? `The receipt holds in this browser, too: ${recomputed}. onnxruntime took ${short(seconds)} seconds to come and start.`
        : `The receipt does not hold in this browser: ${problem || report.verdict}.`,
      { patient: false, problem: !holds },
    );
    body.append(...found.map((one) => table(frame, one, ort.env.versions.web)));
    if (frame.why_not) body.append(element("p", "quiet", `There is no flavour ort of it: ${frame.why_not}.`));
    if (found[0].running) body.append(asker(ort, checker, found[0].running));
    if (holds) chapterDone("onnxruntime");
  }
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}

/** The receipt at all levels, then how long it takes in a default session, which is kept. */
async function examine(ort, checker, file, signal, now) {
  const bytes = bytesOf(file);
  try {
    const report = await checker.check(ort, ort.env.versions.web, bytes, async (level) => {
      now(`Recomputing the receipt of ${file.name}, optimization level ${level}.`);
      await new Promise((drawn) => setTimeout(drawn));
      signal.throwIfAborted();
    });
    const started = performance.now();
    const running = await checker.session(ort, bytes);
    const loadMs = performance.now() - started;
    return { file, report, running, loadMs, answerMs: await timed(() => ask(ort, checker, running, 0.5)) };
  } catch (error) {
    signal.throwIfAborted();
    return { file, problem: error.message };
  }
}

function bytesOf({ base64 }) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

async function timed(act) {
  await act();
  const started = performance.now();
  for (let i = 0; i < ANSWERS; i++) await act();
  return (performance.now() - started) / ANSWERS;
}

async function ask(ort, checker, running, x) {
  const [{ data }] = await checker.answer(ort, running, [{ dtype: "float32", shape: [1, 1], data: Float32Array.of(x) }]);
  return data[0];
}

function table(frame, { file, report, problem, loadMs, answerMs }, version) {
  const columns = ["Where", "Furthest from PyTorch", "Loaded in", "One answer"];
  const { table, body } = headed(columns, { caption: FLAVORS[file.flavor], className: "numbers places" });
  const { server } = file;
  const there = [distance(server.furthest, server.outcome), time(server.load_ms), time(server.answer_ms)];
  row(body, "PyTorch", "made the receipt", ["0", "", ""]);
  row(body, "The server", frame.server, there, server.problem);
  const furthest = report && Math.max(...report.levels.map((level) => level.max_abs_diff));
  const here = report ? [distance(furthest, report.outcome), time(loadMs), time(answerMs)] : ["✗", "", ""];
  const reason = problem || (report.holds ? "" : [report.verdict, ...report.unmet].join("; "));
  row(body, "This browser", `onnxruntime-web ${version}, one thread, ${browserName()}`, here, reason);
  return table;
}

function row(body, name, about, cells, problem = "") {
  const head = headCell("", "row");
  head.append(element("span", "level", name), element("span", "about", about));
  if (problem) head.append(element("span", "about problem", problem));
  body.insertRow().append(head, ...cells.map((text) => element("td", "", text)));
}

function distance(furthest, outcome) {
  if (furthest === null) return "✗";
  return `${furthest === 0 ? "0" : powerOfTen(furthest)} ${outcome === "broken" ? "✗" : "✓"}`.replaceAll(" ", "\u00a0");
}

function time(milliseconds) {
  return `${short(milliseconds)}\u00a0ms`;
}

/** An x of the visitor, answered where they are. */
function asker(ort, checker, running) {
  const box = element("div", "asker");
  const label = element("label", "", "x, here");
  const input = element("input");
  Object.assign(input, { type: "text", inputMode: "decimal", value: "0.5", autocomplete: "off" });
  label.append(input);
  box.append(label);
  const say = spoken(box);
  const answer = async () => {
    const x = Number(input.value.trim().replace(",", ".") || "empty");
    if (!(Math.abs(x) <= LARGEST)) {
      say(`x='${input.value}' is not a number; expected one such as 0.5 or −1.2.`, { patient: false, problem: true });
      return;
    }
    const y = await ask(ort, checker, running, x);
    const words = `For x = ${Number(x.toPrecision(6))} this browser answers ${Number(y.toPrecision(6))}`;
    say(minus(`${words}; the server was not asked.`), { patient: false });
  };
  input.addEventListener("input", answer);
  answer();
  return box;
}

/** As it calls itself. */
function browserName() {
  const found = navigator.userAgent.match(/(Edg|OPR|Firefox|Chrome|Version)\/(\d+)/g) ?? ["a browser/"];
  const [name, version] = (found.find((part) => /^(Edg|OPR|Firefox)/.test(part)) ?? found[0]).split("/");
  const known = { Edg: "Edge", OPR: "Opera", Version: "Safari", Chrome: "Chromium" };
  return `${known[name] ?? name} ${version}`.trim();
}
