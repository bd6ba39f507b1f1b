/** Chapter "rounding": which kind of error is it? Judged by the arithmetic itself. */

import { dequantize, quantSpec, quantize, roundToCodes } from "../../static/data/quantize.js";
import { choice } from "../../static/widgets/controls.js";
import { element } from "../../static/widgets/dom.js";

const GRID = { ...quantSpec(4), scale: Math.fround(0.1), zeroPoint: 0 };
const WEIGHTS = ["0.34", "1.2", "−0.83", "0.76"];

export function mount(view) {
  const list = element("div", "mistakes");
  for (const text of WEIGHTS) list.append(question(text));
  view.append(list);
}

function question(text) {
  const box = element("div", "mistake");
  const verdict = element("p", "verdict");
  verdict.setAttribute("aria-live", "polite");
  const w = Math.fround(Number(text.replace("−", "-")));
  const steps = text.replace(/(−?)(.*)/, (_, sign, size) => sign + String(Number((10 * Number(size)).toFixed(1))));
  const rounded = roundToCodes(w, GRID);
  const code = quantize(w, GRID);
  const right = rounded === code ? "rounding" : "clipping";
  const number = (value) => String(value).replace("-", "−");
  const value = number(Number(dequantize(code, GRID).toFixed(2)));
  const why =
    right === "rounding"
      ? `${steps} steps round to ${number(code)}, which is a code: only rounding.`
      : `${steps} steps round to ${number(rounded)}; the last code is ${number(code)}, so it is clamped.`;
  choice(box, {
    label: `${text} becomes ${value}`,
    options: [["rounding", "rounding"], ["clipping", "clipping"]],
    value: null,
    set: (answer) => {
      verdict.classList.toggle("wrong", answer !== right);
      verdict.textContent = `${answer === right ? "✓ Right" : "✗ Not quite"}: ${why}`;
    },
  });
  box.append(verdict);
  return box;
}
