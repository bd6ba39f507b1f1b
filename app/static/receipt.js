/** Chapter "take home": what the exported file was found to be. */

import { follow } from "./follow.js";
import { element } from "./models.js";

export function mount(root, props, watch) {
  const view = root.querySelector(".view");
  let exported = null;
  let onPage = null;
  const moved = element("p", "quiet");

  const compare = () => {
    moved.textContent = exported && onPage && exported !== onPage ? `Since then the page has moved on to ${onPage}.` : "";
  };
  window.addEventListener("network", (event) => {
    onPage = event.detail;
    compare();
  });

  follow(props, watch, (frame) => {
    exported = frame.label ?? null;
    const words = element("p", frame.problem ? "words problem" : "words", frame.words);
    words.setAttribute("aria-live", "polite");
    view.replaceChildren(words, moved);
    compare();
    if (frame.levels) view.append(sizes(frame), parity(frame));
  });
}

function sizes(frame) {
  const bytes = (n) => n.toLocaleString("en");
  const text =
    `It has ${bytes(frame.file_bytes)} bytes; the same weights and biases in FP32 would take ${bytes(frame.fp32_bytes)}. ` +
    `${bytes(frame.code_bytes)} bytes are weight codes, the rest is biases, scales, the graph and a receipt.`;
  return element("p", "", text);
}

function parity(frame) {
  const table = element("table", "numbers");
  table.append(element("caption", "", "onnxruntime against PyTorch"));
  const head = table.createTHead().insertRow();
  for (const title of ["Optimization level", "Furthest apart", "Differ", "Verdict"]) {
    const cell = element("th", "", title);
    cell.setAttribute("scope", "col");
    head.append(cell);
  }
  const body = table.createTBody();
  for (const level of frame.levels) {
    const row = body.insertRow();
    const name = element("th", "", level.level);
    name.setAttribute("scope", "row");
    const verdict = element("td", level.ok ? "verdict ok" : "verdict problem", level.ok ? "✓ ok" : "✗ differs");
    row.append(
      name,
      element("td", "", level.max_abs_diff.toExponential(1)),
      element("td", "", `${level.code_mismatches} of ${level.outputs}`),
      verdict,
    );
  }
  return table;
}
