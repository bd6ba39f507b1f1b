/** The controls of the chapters that run in the browser: choices and sliders. */

import { element } from "./dom.js";

let groups = 0;

/**
 * A few choices, one of them taken.
 * @param {[string | number, string][]} options value and name
 */
export function choice(parent, { label, options, value, set }) {
  const field = element("fieldset", "choice");
  field.append(element("legend", "", label));
  const name = `choice-${groups++}`;
  const row = element("div", "segments");
  const inputs = options.map(([option, text]) => {
    const wrap = element("label");
    const input = element("input");
    Object.assign(input, { type: "radio", name, checked: option === value });
    input.addEventListener("change", () => set(option));
    wrap.append(input, element("span", "", text));
    row.append(wrap);
    return input;
  });
  field.append(row);
  parent.append(field);
  return (taken) => options.forEach(([option], i) => (inputs[i].checked = option === taken));
}

/** A slider with its name and what it says now. @returns update(value, text, disabled, max) */
export function slider(parent, { label, min, max, step, value, set }) {
  const wrap = element("label", "slider");
  const input = element("input");
  const words = element("span", "value");
  Object.assign(input, { type: "range", min, max, step, value });
  input.setAttribute("aria-label", label);
  input.addEventListener("input", () => set(input.valueAsNumber));
  wrap.append(element("span", "name", label), words, input);
  parent.append(wrap);
  return (now, text, disabled = false, most = max) => {
    input.max = most;
    input.value = now;
    input.disabled = disabled;
    input.setAttribute("aria-valuetext", text);
    words.textContent = text;
  };
}
