/** Chapter "four_bits": what a width does to the weights of one neuron, and to the size of a model. */

import { DragPlot, within } from "../../static/charts/drag.js";
import { loadWeights } from "../../static/data/pretrained.js";
import { dequantize, fakeQuantize, minmaxQparams, quantSpec, toBfloat16 } from "../../static/data/quantize.js";
import { chapterDone } from "../../static/page/done.js";
import { element, svgElement } from "../../static/widgets/dom.js";
import { figures } from "../../static/widgets/figures.js";
import { grouped, percent, signed } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { numbersTable } from "../../static/widgets/table.js";

const WIDTHS = [1.58, 2, 3, 4, 8, 16, 32];
const FLOATS = { 16: "bfloat16", 32: "float32" };
const IN_A_FILE = { 1.58: 2, 3: 4 }; // ONNX has no type for these
const MODELS = [
  { name: "1 million", parameters: 1e6 },
  { name: "7 billion", parameters: 7e9 },
  { name: "70 billion", parameters: 70e9 },
];
const MEMORY = 8e9;
const SMALLEST = 1e5; // bytes, where the axis of the sizes begins and ends
const LARGEST = 1e12;
const NEURON = 30;
const REACH = 0.45;
const DOT = 8;
const MOST_ABREAST = 5;
const DRAWN_LEVELS = 256;

export async function mount(view) {
  const weights = (await loadWeights())[NEURON];
  const states = WIDTHS.map((bits) => ofWidth(bits, weights));

  const show = (index) => parts.forEach((update) => update(states[index], states));
  const parts = [
    bitsSlider(view, (index) => {
      show(index);
      chapterDone("four_bits");
    }),
    sums(view),
    levels(view, weights),
    sizes(view),
    sentence(view),
    table(view),
  ];
  show(WIDTHS.indexOf(4));
}

/** What a width means for the weights: their grid, where each one lands, how far it moved, and bytes. */
function ofWidth(bits, weights) {
  const isFloat = bits in FLOATS;
  const spec = quantSpec(bits);
  const grid = { ...spec, ...minmaxQparams(weights, spec) };
  const round = { 16: toBfloat16, 32: (w) => w }[bits] ?? ((w) => fakeQuantize(w, grid));
  const rounded = Array.from(weights, round);
  const squares = (values) => values.reduce((sum, v) => sum + v * v, 0);
  return {
    bits,
    rounded,
    name: `${bits} bits`,
    levels: spec.levels,
    grid: isFloat ? null : Array.from({ length: spec.levels }, (_, i) => dequantize(spec.quantMin + i, grid)),
    error: Math.sqrt(squares(rounded.map((v, i) => v - weights[i])) / squares(Array.from(weights))),
    bytes: MODELS.map(({ parameters }) => (parameters * bits) / 8),
  };
}

function bitsSlider(parent, set) {
  const field = element("div", "width-slider");
  const label = element("label", "name", "Bits per weight");
  const input = element("input");
  Object.assign(input, { type: "range", min: 0, max: WIDTHS.length - 1, step: 1, id: "four-bits-width" });
  label.htmlFor = input.id;
  const marks = element("div", "marks");
  marks.setAttribute("aria-hidden", "true");
  WIDTHS.forEach((bits, i) => {
    const mark = element("span", "", String(bits));
    mark.style.setProperty("--at", i / (WIDTHS.length - 1));
    mark.addEventListener("click", () => set(i));
    marks.append(mark);
  });
  input.addEventListener("input", () => set(input.valueAsNumber));
  field.append(label, input, marks);
  parent.append(field);
  return (state) => {
    const index = WIDTHS.indexOf(state.bits);
    input.value = index;
    input.setAttribute("aria-valuetext", `${state.name}, ${grouped(state.levels)} levels`);
    [...marks.children].forEach((mark, i) => mark.classList.toggle("taken", i === index));
  };
}

function sums(parent) {
  const show = figures(parent);
  return (state) =>
    show([
      [state.grid ? "levels to choose from" : "patterns of bits", grouped(state.levels)],
      ["smaller than FP32", `${Number((32 / state.bits).toPrecision(2))}×`],
      ["relative rounding error", percent(state.error, 2)],
    ]);
}

/** The number line: the levels, and the weights piled up where they land. */
function levels(parent, weights) {
  const plot = new DragPlot(parent, {
    title: `The ${weights.length} weights of one neuron`,
    height: 184,
    margin: { left: 12, right: 12 },
    x: { domain: [-REACH, REACH], ticks: [-0.4, -0.2, 0, 0.2, 0.4], format: (v) => signed(v, 1), title: "weight" },
    y: { domain: [0, 1], ticks: [] },
    legend: [["level", "level"], ["before", "where a weight was"], ["after", "where it lands"]],
  });
  const band = plot.area("level-band");
  const lines = plot.line("level");
  const rug = plot.line("before");
  const dots = Array.from(weights, () => svgElement("circle", { class: "weight", r: DOT / 2 - 0.5 }));
  plot.svg.append(...dots);
  return (state) => {
    plot.show(() => {
      const floor = plot.py(0);
      const shown = state.grid?.filter((level) => Math.abs(level) < REACH) ?? [];
      const asLines = state.levels <= DRAWN_LEVELS;
      lines.setAttribute("d", asLines ? shown.map((v) => `M${plot.px(v).toFixed(1)} ${floor}v-200`).join("") : "");
      lines.classList.toggle("faint", state.levels > 32);
      band.setAttribute("d", asLines ? "" : plot.band(-REACH, REACH));
      rug.setAttribute("d", Array.from(weights, (w) => `M${plot.px(w).toFixed(1)} ${floor}v-7`).join(""));
      const apart = state.grid ? plot.px(state.grid[1]) - plot.px(state.grid[0]) : 0;
      const abreast = within(Math.floor((0.6 * apart) / DOT), [1, MOST_ABREAST]);
      const places = piled(state.rounded.map((v) => plot.px(v)), abreast);
      places.forEach(([x, row], i) => {
        dots[i].style.transform = `translate(${x.toFixed(1)}px, ${floor - 13 - row * DOT}px)`;
      });
    });
    const used = new Set(state.rounded).size;
    plot.describe(
      `Number line from −${REACH} to ${REACH}. At ${state.name} there are ${grouped(state.levels)} levels; ` +
        `the ${weights.length} weights land on ${used} of them.`,
    );
  };
}

/** Where dots at these places lie when none covers another: [x, row] each, equal ones up to so many abreast. */
function piled(xs, columns) {
  const order = xs.map((_, i) => i).sort((a, b) => xs[a] - xs[b]);
  const places = [];
  const rows = []; // the right end of each row so far
  for (let start = 0; start < order.length; ) {
    let end = start;
    while (end < order.length && xs[order[end]] === xs[order[start]]) end++;
    const abreast = Math.min(columns, end - start);
    for (let k = start; k < end; k++) {
      const x = xs[order[k]] + ((k - start) % abreast - (abreast - 1) / 2) * DOT;
      let row = rows.findIndex((right) => right <= x - DOT + 0.01);
      if (row < 0) row = rows.push(0) - 1;
      rows[row] = x;
      places[order[k]] = [x, row];
    }
    start = end;
  }
  return places;
}

/** Bytes of whole models on a log axis, against 8 GB. */
function sizes(parent) {
  const box = element("div", "sizes");
  box.append(element("p", "plot-title", "What a whole model takes, and whether 8 GB hold it"));
  const rows = MODELS.map(({ name }) => {
    const row = element("div", "size");
    const track = element("div", "track");
    track.style.setProperty("--limit", place(MEMORY));
    const bar = element("div", "bar");
    track.append(bar);
    const value = element("span", "value");
    row.append(element("span", "name", `${name} weights`), track, value);
    box.append(row);
    return { row, bar, value };
  });
  const limit = element("p", "quiet limit", "Log scale from 100 kB to 1 TB; the line is 8 GB.");
  box.append(limit);
  parent.append(box);
  return (state) =>
    rows.forEach(({ row, bar, value }, i) => {
      const fits = state.bytes[i] <= MEMORY;
      bar.style.setProperty("--to", place(state.bytes[i]));
      row.classList.toggle("too-large", !fits);
      value.textContent = `${inBytes(state.bytes[i])} ${fits ? "✓ fits" : "✗ too large"}`;
    });
}

function place(bytes) {
  return Math.log(bytes / SMALLEST) / Math.log(LARGEST / SMALLEST);
}

function sentence(parent) {
  const say = spoken(parent);
  return (state) => {
    const largest = (MEMORY * 8) / state.bits / 1e9;
    const stored = IN_A_FILE[state.bits];
    say(
      `At ${state.name}, 8 GB hold ${largest.toFixed(largest < 10 ? 1 : 0)} billion weights.` +
        (state.bits in FLOATS ? ` This is ${FLOATS[state.bits]}, whose levels lie closer together near 0.` : "") +
        (stored ? ` ONNX has no type of ${state.bits} bits, so a file takes ${stored} for each.` : ""),
    );
  };
}

function table(parent) {
  const columns = ["Width", "Levels", "Rounding error", ...MODELS.map(({ name }) => `${name} weights`)];
  const update = numbersTable(parent, "Every width", columns);
  return (_, states) =>
    update(() =>
      states.map((state) => [
        state.name,
        grouped(state.levels),
        percent(state.error, 2),
        ...state.bytes.map(inBytes),
      ]),
    );
}

function inBytes(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  const power = Math.min(3, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value >= 100 ? Math.round(value) : Number(value.toPrecision(3))} ${units[power]}`;
}
