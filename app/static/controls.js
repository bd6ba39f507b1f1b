/** The controls of the chapters that run in the browser: choices, sliders, a line of words, a table of numbers. */

import { element } from "./models.js";

const SECONDS_BETWEEN_WORDS = 2.5; // a sentence takes time to read, and to be read aloud
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

/** A line that is read aloud, but not at every move: the latest words wait until the last have had their time. */
export function spoken(parent) {
  const line = element("p", "words");
  line.setAttribute("aria-live", "polite");
  parent.append(line);
  let last = -Infinity;
  let waiting = null;
  let latest = "";
  const write = () => {
    waiting = null;
    last = performance.now();
    if (line.textContent !== latest) line.textContent = latest;
  };
  return (text) => {
    latest = text;
    waiting ??= setTimeout(write, Math.max(0, last + 1000 * SECONDS_BETWEEN_WORDS - performance.now()));
  };
}

/** The numbers of a chart behind a toggle; filled only while it is open. @returns update(() => rows) */
export function numbersTable(parent, { caption, columns }) {
  const details = element("details", "table");
  const table = element("table", "numbers");
  const head = table.createTHead().insertRow();
  table.prepend(element("caption", "", caption));
  for (const column of columns) {
    const cell = element("th", "", column);
    cell.scope = "col";
    head.append(cell);
  }
  const body = table.createTBody();
  details.append(element("summary", "", "The numbers"), table);
  parent.append(details);
  let rows = () => [];
  const fill = () => {
    if (!details.open) return;
    body.replaceChildren(
      ...rows().map(([name, ...cells]) => {
        const row = element("tr");
        const first = element("th", "", name);
        first.scope = "row";
        row.append(first, ...cells.map((cell) => element("td", "", cell)));
        return row;
      }),
    );
  };
  details.addEventListener("toggle", fill);
  return (latest) => {
    rows = latest;
    fill();
  };
}

/** The visitor has done what the chapter is about. */
export function chapterDone(key) {
  window.dispatchEvent(new CustomEvent("chapter-done", { detail: key }));
}

/** A minus sign as long as a plus. */
export function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}
