/** What a budget of bytes buys: the slider, the chart of all mixes, and the chosen mix as Python. */

import { Plot, decades } from "../../static/charts/plot.js";
import { copyable } from "../../static/widgets/copyable.js";
import { element } from "../../static/widgets/dom.js";
import { grouped, percent, short } from "../../static/widgets/format.js";
import { numbersTable } from "../../static/widgets/table.js";
import { WIDTHS } from "./layer_table.js";

const HEIGHT = 260;
const HARDLY_BETTER = 0.9;

export function budget(parent, choose) {
  const box = element("div", "budget");
  const label = element("label", "", "Budget for the weight codes");
  const range = element("input");
  range.type = "range";
  range.min = 0;
  range.id = "budget";
  label.htmlFor = range.id;
  const exact = element("label", "exact");
  const number = element("input");
  number.type = "number";
  number.id = "budget-bytes";
  exact.append("bytes", number);
  const words = element("p", "bought");
  box.append(label, range, exact, words);
  parent.append(box);

  let mixes = [];
  range.addEventListener("input", () => choose({ mix: Number(range.value) }));
  number.addEventListener("change", () => {
    const most = Number(number.value);
    if (mixes.length && number.value !== "") choose({ mix: lastWithin({ mixes }, most) });
  });
  return (frame, { mix }) => {
    mixes = frame.mixes;
    const chosen = mixes[mix];
    range.max = Math.max(0, mixes.length - 1);
    range.disabled = number.disabled = !chosen;
    words.textContent = chosen ? bought(frame, chosen) : "Once the layers are scanned, a budget buys the mix of widths that costs least.";
    if (!chosen) {
      number.value = "";
      return;
    }
    range.value = mix;
    range.setAttribute("aria-valuetext", `${grouped(chosen.bytes)} bytes: ${chosen.bits.join(", ")} bits`);
    number.min = mixes[0].bytes;
    number.max = mixes.at(-1).bytes;
    if (document.activeElement !== number) number.value = chosen.bytes;
  };
}

/** One sentence: what the mix is expected to do, what it does, and what the same width everywhere would. */
function bought(frame, { bytes, bits, expected, measured, accuracy }) {
  const found = measured === null ? "not measured yet" : `measured ${short(measured)}`;
  const right = accuracy === null ? "" : `, ${percent(accuracy)} of unseen images right`;
  const same = frame.uniform.find(({ bits: width }) => width === frame.bits);
  const beside = same ? ` ${same.bits} bits everywhere take ${grouped(same.bytes)} bytes and measure ${short(same.measured)}.` : "";
  const blind = measured !== null && measured > HARDLY_BETTER * frame.blind ? ` That is hardly better than to answer without a look at the input, which gives ${short(frame.blind)}: it has fallen apart.` : "";
  return `${grouped(bytes)} bytes as ${bits.join(", ")} bits: ${frame.metric.toLowerCase()} expected ${short(expected)}, ${found}${right}.${blind}${beside}`;
}

export function budgetChart(parent) {
  const box = element("div");
  parent.append(box);
  const plot = new Plot(box, {
    title: "What bytes buy, log scale",
    height: HEIGHT,
    x: { domain: [0, 1], ticks: [], format: grouped, title: "bytes of weight codes" },
    y: decades([], -3, 1),
    legend: [
      ["fp32", "FP32"],
      ["clean", "expected"],
      ["ptq mixes", "measured"],
      ["ptq same", "one width"],
      ["point", "yours"],
    ],
  });
  const everyNumber = numbersTable(box, "What bytes buy", ["Bytes", "Bits of each layer", "Expected", "Measured"]);
  const [float, expected, measured, same, yours] = ["fp32", "clean", "ptq mixes", "ptq same", "point"].map((kind) => plot.line(kind));
  return (frame, { mix }) => {
    const { mixes, uniform, baseline } = frame;
    everyNumber(() => mixes.map((m) => [grouped(m.bytes), m.bits.join(", "), short(m.expected), m.measured === null ? "–" : short(m.measured)]));
    const chosen = mixes[mix];
    const low = mixes[0]?.bytes ?? 0;
    const high = mixes.at(-1)?.bytes ?? 1;
    const margin = (high - low) / 20;
    plot.setAxis("x", { domain: [low - margin, high + margin], ticks: mixes.length ? quarters(low, high) : [] });
    plot.setAxis("y", decades(metrics(frame), -3, 0));
    plot.show(() => {
      const done = mixes.filter((m) => m.measured !== null);
      float.setAttribute("d", baseline === null ? "" : plot.through([low - margin, high + margin], [baseline, baseline]));
      expected.setAttribute("d", stairs(plot, mixes, high + margin));
      measured.setAttribute("d", plot.dots(done.map((m) => m.bytes), done.map((m) => m.measured)));
      same.setAttribute("d", rings(plot, uniform));
      yours.setAttribute("d", chosen ? plot.dots([chosen.bytes], [chosen.measured ?? chosen.expected]) : "");
    });
    plot.describe(
      chosen
        ? `${mixes.length} mixes from ${grouped(low)} to ${grouped(high)} bytes. Yours has ${grouped(chosen.bytes)}: ${frame.metric.toLowerCase()} ${short(chosen.measured ?? chosen.expected)}.`
        : "Empty until the layers are scanned.",
    );
  };
}

/** The mix as Python. */
export function listing(parent) {
  const show = copyable(parent, "This mix in your own code");
  return ({ mixes, code }, { mix }) => {
    const bits = mixes[mix]?.bits;
    show(bits ? [code.head, ...code.lines.map((line, i) => line[WIDTHS.indexOf(bits[i])]), code.tail].join("\n") : "");
  };
}

function metrics({ layers, mixes, uniform, baseline, healing }) {
  return [
    ...layers.flatMap(({ metric }) => metric ?? []),
    ...mixes.flatMap(({ expected, measured }) => [expected, measured]),
    ...uniform.map(({ measured }) => measured),
    ...(healing?.history.map(([, metric]) => metric) ?? []),
    baseline,
  ].filter((value) => value !== null && value > 0);
}

/** What each budget buys: level until the next mix can be paid. */
function stairs(plot, mixes, end) {
  const corners = mixes.flatMap((mix, i) => [mix, { ...mix, bytes: mixes[i + 1]?.bytes ?? end }]);
  return plot.through(corners.map((m) => m.bytes), corners.map((m) => m.expected));
}

function rings(plot, points) {
  return points
    .map(({ bytes, measured }) => `M${plot.px(bytes) - 5} ${plot.py(measured)}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0`)
    .join("");
}

export function lastWithin({ mixes }, bytes) {
  return Math.max(0, mixes.findLastIndex((mix) => mix.bytes <= bytes));
}

export function uniformBytes({ layers }, bits) {
  return layers.reduce((sum, { elements }) => sum + Math.ceil((elements * bits) / 8), 0);
}

function quarters(low, high) {
  return [0, 1, 2, 3].map((i) => Math.round(low + (i * (high - low)) / 3));
}
