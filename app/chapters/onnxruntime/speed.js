/** Chapter "onnxruntime": how long the same network takes as float32 and in both flavours. */

import { follow } from "../../static/data/follow.js";
import { element } from "../../static/widgets/dom.js";
import { grouped, short, times } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { headCell } from "../../static/widgets/table.js";

const FLAVORS = {
  fp32: ["float32", "as if nobody had quantized it"],
  qdq: ["qdq", "standard operators: the weights become floats anew in every call"],
  ort: ["ort", "MatMulNBits: multiplies by the codes as they lie in memory"],
};

export function mount(view, props, watch) {
  const say = spoken(view);
  const body = element("div");
  view.append(body);

  follow(props, watch, (frame) => {
    say(frame.words, { patient: false, problem: Boolean(frame.problem) });
    if (frame.groups) body.replaceChildren(...frame.groups.map(table));
  });
}

function table({ title, rows }) {
  const table = element("table", "numbers speeds");
  table.append(element("caption", "", title));
  const slowest = Math.max(...rows.map(({ milliseconds }) => milliseconds));
  const body = table.createTBody();
  for (const { flavor, milliseconds, bytes, answers } of rows) {
    const [name, about] = FLAVORS[flavor];
    const head = headCell("", "row");
    head.append(element("span", "level", name), element("span", "about", about));
    const bar = element("span", `part ${flavor === "fp32" ? "fp32" : "codes"}`);
    bar.style.width = `${(100 * milliseconds) / slowest}%`;
    const time = element("td", "time");
    time.append(element("span", "level", `${short(milliseconds)} ms`), bar);
    if (flavor !== "fp32") time.append(element("span", "about", compared(milliseconds, rows[0].milliseconds)));
    const amount = element("td", "amount");
    amount.append(element("span", "", `${grouped(bytes)} bytes`));
    if (answers) amount.append(element("span", "level", answers === "broken" ? "✗ broken" : `✓ ${answers}`));
    body.insertRow().append(head, time, amount);
  }
  return table;
}

/** A time beside that of float32. */
function compared(milliseconds, float) {
  if (Math.abs(Math.log(milliseconds / float)) < Math.log(1.1)) return "about the same";
  return milliseconds < float ? `${times(float, milliseconds)} times faster` : `${times(milliseconds, float)} times slower`;
}
