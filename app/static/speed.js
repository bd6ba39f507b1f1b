/** Chapter "onnxruntime": how long the same network takes as float32 and in both flavours. */

import { element } from "./dom.js";
import { follow } from "./follow.js";
import { grouped } from "./format.js";
import { headCell } from "./table.js";

const FLAVORS = {
  fp32: ["float32", "as if nobody had quantized it"],
  qdq: ["qdq", "standard operators: the weights become floats anew in every call"],
  ort: ["ort", "MatMulNBits: multiplies by the codes as they lie in memory"],
};

export function mount(root, props, watch) {
  const view = root.querySelector(".view");
  const words = element("p", "words");
  words.setAttribute("aria-live", "polite");
  const body = element("div");
  view.replaceChildren(words, body);

  follow(props, watch, (frame) => {
    words.textContent = frame.words;
    words.classList.toggle("problem", Boolean(frame.problem));
    if (frame.groups) body.replaceChildren(...frame.groups.map(table));
  });
}

function table({ title, rows }) {
  const table = element("table", "numbers speeds");
  table.append(element("caption", "", title));
  const slowest = Math.max(...rows.map(({ ms }) => ms));
  const float = rows.find(({ flavor }) => flavor === "fp32").ms;
  const body = table.createTBody();
  for (const { flavor, ms, bytes, answers } of rows) {
    const [name, about] = FLAVORS[flavor];
    const head = headCell("", "row");
    head.append(element("span", "level", name), element("span", "about", about));
    const bar = element("span", `part ${flavor === "fp32" ? "fp32" : "codes"}`);
    bar.style.width = `${(100 * ms) / slowest}%`;
    const time = element("td", "time");
    time.append(element("span", "level", milliseconds(ms)), bar);
    if (flavor !== "fp32") time.append(element("span", "about", compared(float / ms)));
    const amount = element("td", "amount");
    amount.append(element("span", "", `${grouped(bytes)} bytes`));
    if (answers) amount.append(element("span", "level", answers === "broken" ? "✗ broken" : `✓ ${answers}`));
    body.insertRow().append(head, time, amount);
  }
  return table;
}

function milliseconds(ms) {
  return `${ms >= 10 ? Math.round(ms) : Number(ms.toPrecision(2))} ms`;
}

/** @param {number} ratio  the time of float32 over this one's */
function compared(ratio) {
  if (Math.abs(Math.log(ratio)) < Math.log(1.1)) return "about the same";
  return ratio > 1 ? `${ratio.toPrecision(2)} times faster` : `${(1 / ratio).toPrecision(2)} times slower`;
}
