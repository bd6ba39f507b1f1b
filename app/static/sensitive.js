/** Chapter "sensitive": a bar a layer, what a budget of bytes buys, and healing by training. */

import { chapterDone, choice as choices, numbersTable, spoken } from "./controls.js";
import { copyable } from "./copyable.js";
import { follow } from "./follow.js";
import { element, short, svgElement } from "./models.js";
import { Plot, decades } from "./plot.js";

const HEIGHT = 260;
const WIDTHS = [2, 3, 4, 8];

export function mount(root, props, watch) {
  const view = root.querySelector(".view");
  view.replaceChildren();

  // What the visitor has chosen here; the server learns of it when Heal is pressed.
  const choice = { heal: "worst", bits: 4, mix: 0 };
  let frame = null;
  const update = () => {
    view.dataset.choice = JSON.stringify(choice);
    for (const part of parts) part(frame, choice);
  };
  const choose = (changes) => {
    Object.assign(choice, changes);
    update();
  };

  const parts = [statusLine(view), layerTable(view, choose), budget(view, choose), whatToHeal(view, choose)];
  const charts = element("div", "charts");
  view.append(charts);
  parts.push(budgetChart(charts), healingChart(charts), unseenDigits(view), listing(view));

  follow(props, watch, (next) => {
    const isOther = !frame || frame.label !== next.label || frame.bits !== next.bits;
    const isNew = !frame || (next.mixes.length && next.mixes.length !== frame.mixes.length);
    frame = next;
    if (isOther) choice.bits = frame.bits;
    if (isOther || isNew) choice.mix = lastWithin(frame, uniformBytes(frame, frame.bits));
    if (!frame.running && frame.mixes.length) chapterDone("sensitive");
    update();
  });
}

// Each part builds its nodes once and returns the function that updates them.

function statusLine(parent) {
  const status = element("div", "status");
  const bar = element("progress");
  bar.setAttribute("aria-label", "Progress");
  status.append(bar);
  const say = spoken(status);
  parent.append(status);
  return (frame) => {
    bar.max = frame.total;
    bar.value = frame.done;
    say(frame.problem || frame.words);
    status.lastChild.classList.toggle("problem", Boolean(frame.problem));
  };
}

function layerTable(parent, choose) {
  const options = WIDTHS.map((width) => [width, `${width} bits`]);
  const show = choices(parent, { label: "One layer is rounded to", options, value: 4, set: (bits) => choose({ bits }) });
  const table = element("table", "layers");
  const head = table.createTHead().insertRow();
  const title = element("th");
  title.setAttribute("scope", "col");
  for (const cell of [headCell("Layer"), title, headCell("In the mix"), headCell("Bytes")]) head.append(cell);
  const body = table.createTBody();
  const foot = table.createTFoot().insertRow();
  const scaleCell = element("td", "scale");
  const scale = element("div");
  scale.setAttribute("aria-hidden", "true");
  scaleCell.append(scale);
  const share = element("td");
  const total = element("td", "bytes");
  foot.append(element("td", "", "all layers"), scaleCell, share, total);
  parent.append(table);
  const everyNumber = numbersTable(parent, { caption: "One layer rounded", columns: ["Layer", "Weights", ...options.map(([, name]) => name)] });

  let drawn = "";
  let rows = [];
  return (frame, { bits, mix }) => {
    show(bits);
    everyNumber(() => frame.layers.map(({ name, elements, metric }) => [name, grouped(elements), ...(metric ?? []).map(short)]));
    title.textContent = `${frame.metric} with only this layer at ${bits} bits`;
    const names = frame.layers.map(({ name, about }) => `${name} ${about}`).join();
    if (names !== drawn) rows = layerRows(body, frame.layers);
    drawn = names;

    const column = WIDTHS.indexOf(bits);
    const reach = farthest(frame);
    const found = frame.layers.map(({ metric }) => metric?.[column] ?? null);
    const worst = worstOf(frame, bits);
    const chosen = frame.mixes[mix];
    rows.forEach((row, i) => {
      drawBar(row, found[i], frame.baseline, reach, i === worst);
      drawHealed(row, frame, i);
      drawBits(row, chosen?.bits[i]);
      row.bytes.textContent = chosen ? grouped(Math.ceil((frame.layers[i].elements * chosen.bits[i]) / 8)) : "–";
    });
    total.textContent = chosen ? grouped(chosen.bytes) : "–";
    share.textContent = chosen ? `${((100 * chosen.bytes) / sum(frame.layers.map((l) => 4 * l.elements))).toFixed(0)} % of FP32` : "";
    table.style.setProperty("--decades", reach);
    scale.replaceChildren(...ticks(frame.baseline, reach));
  };
}

function layerRows(body, layers) {
  body.replaceChildren();
  return layers.map(({ name, about }) => {
    const row = body.insertRow();
    const label = headCell("", "row");
    label.append(element("code", "", name), element("span", "about", about));
    const bar = element("div", "bar");
    const fill = element("span", "fill ptq");
    const healed = element("span", "fill qat");
    bar.append(fill, healed);
    const amount = element("span", "amount");
    const cell = element("td", "damage");
    cell.append(bar, amount);
    const bits = element("td", "bits");
    const cells = element("span", "cells");
    cells.setAttribute("aria-hidden", "true");
    cells.append(...Array.from({ length: 8 }, () => element("i")));
    const count = element("span", "count");
    bits.append(cells, count);
    const bytes = element("td", "bytes");
    row.append(label, cell, bits, bytes);
    return { row, fill, healed, amount, cells, count, bytes };
  });
}

function drawBar({ row, fill, amount }, metric, baseline, reach, isWorst) {
  const known = metric !== null && metric !== undefined;
  fill.style.width = known ? `${(100 * decadesAbove(metric, baseline)) / reach}%` : "0";
  amount.textContent = known ? `${short(metric)}, ${times(metric, baseline)}${isWorst ? " · most fragile" : ""}` : "not scanned yet";
  row.classList.toggle("worst", isWorst);
}

function drawHealed({ healed, amount }, { healing, baseline, layers, ...frame }, i) {
  const isHealed = healing && healing.layer === layers[i].name && healing.step > 0;
  healed.style.width = isHealed ? `${(100 * decadesAbove(lastOf(healing), baseline)) / farthest({ baseline, layers, ...frame })}%` : "0";
  healed.hidden = !isHealed;
  if (isHealed) amount.textContent += ` · healed to ${short(lastOf(healing))}`;
}

function drawBits({ cells, count }, bits) {
  [...cells.children].forEach((cell, i) => cell.classList.toggle("on", bits !== undefined && i < bits));
  count.textContent = bits === undefined ? "–" : `${bits} bits`;
}

function budget(parent, choose) {
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
    if (mixes.length && number.value !== "") choose({ mix: Math.max(0, mixes.findLastIndex(({ bytes }) => bytes <= most)) });
  });
  return (frame, { mix }) => {
    mixes = frame.mixes;
    const chosen = mixes[mix];
    range.max = Math.max(0, mixes.length - 1);
    range.disabled = number.disabled = !chosen;
    words.textContent = chosen ? bought(frame, chosen) : "Once the layers are scanned, a budget buys the mix of widths that costs least.";
    if (!chosen) return;
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
  const right = accuracy === null ? "" : `, ${(100 * accuracy).toFixed(1)} % of unseen images right`;
  const same = frame.uniform.find(({ bits: width }) => width === frame.bits);
  const beside = same ? ` ${same.bits} bits everywhere: ${grouped(same.bytes)} bytes, ${short(same.measured)}.` : "";
  return `${grouped(bytes)} bytes as ${bits.join(", ")} bits: ${frame.metric.toLowerCase()} expected ${short(expected)}, ${found}${right}.${beside}`;
}

function budgetChart(parent) {
  const box = element("div");
  parent.append(box);
  const plot = new Plot(box, {
    title: "What bytes buy, log scale",
    height: HEIGHT,
    x: { domain: [0, 1], ticks: [], format: grouped, title: "bytes of weight codes" },
    y: { ...decades([], -3, 1), log: true, format: decade },
    legend: [
      ["fp32", "FP32"],
      ["clean", "expected"],
      ["ptq mixes", "measured"],
      ["ptq same", "one width"],
      ["point", "yours"],
    ],
  });
  const everyNumber = numbersTable(box, { caption: "What bytes buy", columns: ["Bytes", "Bits of each layer", "Expected", "Measured"] });
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

function whatToHeal(parent, choose) {
  const options = [["worst", "the most fragile layer"], ["mix", "the mix of the budget"]];
  const show = choices(parent, { label: "Heal trains", options, value: "worst", set: (heal) => choose({ heal }) });
  return (frame, { heal }) => show(heal);
}

function healingChart(parent) {
  const box = element("div");
  parent.append(box);
  const plot = new Plot(box, {
    title: "Healing, log scale",
    height: HEIGHT,
    x: { domain: [0, 1], ticks: [], title: "optimizer step" },
    y: { ...decades([], -3, 1), log: true, format: decade },
    legend: [
      ["fp32", "FP32"],
      ["ptq start", "crushed"],
      ["qat", "trained while rounded"],
    ],
  });
  const everyNumber = numbersTable(box, { caption: "Healing", columns: ["Step", "Error"] });
  const [float, line, start, head] = ["fp32", "qat", "head ptq", "head qat"].map((kind) => plot.line(kind));
  return (frame) => {
    const { healing, baseline } = frame;
    const steps = healing?.steps ?? 1;
    everyNumber(() => (healing?.history ?? []).map(([step, error]) => [grouped(step), short(error)]));
    plot.setAxis("x", { domain: [0, steps], ticks: healing ? [0, steps] : [], format: grouped });
    plot.setAxis("y", decades([...(healing?.history.map(([, m]) => m) ?? []), baseline].filter((m) => m !== null), -3, 0));
    plot.show(() => {
      const at = healing?.history.map(([step]) => step) ?? [];
      const metric = healing?.history.map(([, m]) => m) ?? [];
      float.setAttribute("d", baseline === null ? "" : plot.through([0, steps], [baseline, baseline]));
      line.setAttribute("d", plot.through(at, metric));
      start.setAttribute("d", plot.dots(at.slice(0, 1), metric.slice(0, 1)));
      head.setAttribute("d", at.length > 1 ? plot.dots(at.slice(-1), metric.slice(-1)) : "");
    });
    plot.describe(healing ? healed(frame) : "Empty until Heal is pressed.");
  };
}

function healed({ healing, baseline, metric }) {
  const what = healing.layer ? `layer ${healing.layer} at ${healing.bits[0]} bits` : `the mix of ${healing.bits.join(", ")} bits`;
  const [, crushed] = healing.history[0];
  return `${metric} with ${what}: ${short(crushed)} crushed, ${short(lastOf(healing))} at step ${grouped(healing.step)}; ${short(baseline)} in FP32.`;
}

/** Images that were never trained on, and what the network that heals takes them for. */
function unseenDigits(parent) {
  const figure = element("figure", "unseen");
  const title = element("figcaption");
  const row = element("div", "images");
  row.setAttribute("role", "img");
  figure.append(title, row);
  parent.append(figure);
  let images = [];
  return ({ digits, healing }) => {
    figure.hidden = !digits.length;
    if (digits.length !== images.length) {
      images = digits.map(({ pixels }) => image(pixels));
      row.replaceChildren(...images.map(({ node }) => node));
    }
    const answers = healing?.answers ?? [];
    const right = answers.filter((answer, i) => answer === digits[i].digit).length;
    const known = answers.length ? `${right} of ${digits.length} read right at step ${grouped(healing.step)}` : "not read yet: press Heal";
    title.textContent = `Images never trained on, ${known}`;
    row.setAttribute("aria-label", `${digits.length} handwritten digits, ${known}.`);
    images.forEach(({ node, words }, i) => {
      const isRight = answers[i] === digits[i].digit;
      node.className = answers.length ? (isRight ? "right" : "wrong") : "";
      words.textContent = answers.length ? `${isRight ? "✓" : "✗"} ${answers[i]}` : "?";
    });
  };
}

function image(pixels) {
  const node = element("span");
  const svg = svgElement("svg", { viewBox: "0 0 8 8", width: 32, height: 32, "aria-hidden": "true" });
  [...pixels].forEach((letter, i) => {
    const ink = (letter.charCodeAt(0) - 97) / 16;
    if (ink) svg.append(svgElement("rect", { x: i % 8, y: Math.floor(i / 8), width: 1.02, height: 1.02, opacity: ink }));
  });
  const words = element("span", "read");
  node.append(svg, words);
  return { node, words };
}

/** The mix as Python. */
function listing(parent) {
  const show = copyable(parent, "This mix in your own code");
  return ({ mixes, code }, { mix }) => {
    const bits = mixes[mix]?.bits;
    show(bits ? [code.head, ...code.lines.map((line, i) => line[WIDTHS.indexOf(bits[i])]), code.tail].join("\n") : "");
  };
}

function worstOf({ layers, baseline }, bits) {
  const column = WIDTHS.indexOf(bits);
  if (layers.some(({ metric }) => metric === null)) return null;
  const damage = layers.map(({ metric }) => Math.abs(metric[column] - baseline));
  return damage.indexOf(Math.max(...damage));
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

/** How many decades above the float network the bars reach, whole ones and at least two. */
function farthest({ layers, baseline, healing }) {
  const values = layers.flatMap(({ metric }) => metric ?? []).concat(healing?.history.map(([, m]) => m) ?? []);
  return Math.max(2, ...values.map((value) => Math.ceil(decadesAbove(value, baseline))));
}

function decadesAbove(value, baseline) {
  return Math.max(0, Math.log10(Math.max(value, 1e-12) / Math.max(baseline, 1e-12)));
}

function times(value, baseline) {
  const ratio = value / Math.max(baseline, 1e-12);
  return ratio < 1.05 ? "as FP32" : `${ratio < 10 ? ratio.toFixed(1) : short(ratio)} × FP32`;
}

function ticks(baseline, reach) {
  const step = reach > 3 ? 2 : 1;
  return Array.from({ length: Math.floor(reach / step) + 1 }, (_, i) => {
    const tick = element("span", "", i === 0 ? "FP32" : `× ${grouped(10 ** (i * step))}`);
    const share = (i * step) / reach;
    tick.style.left = `${100 * share}%`;
    if (share > 0.9) tick.className = "last";
    return tick;
  });
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

function lastWithin({ mixes }, bytes) {
  return Math.max(0, mixes.findLastIndex((mix) => mix.bytes <= bytes));
}

function uniformBytes({ layers }, bits) {
  return sum(layers.map(({ elements }) => Math.ceil((elements * bits) / 8)));
}

function lastOf({ history }) {
  return history.at(-1)[1];
}

function quarters(low, high) {
  return [0, 1, 2, 3].map((i) => Math.round(low + (i * (high - low)) / 3));
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}

function headCell(text, scope = "col") {
  const cell = element("th", "", text);
  cell.setAttribute("scope", scope);
  return cell;
}

function grouped(count) {
  return count.toLocaleString("en");
}

function decade(value) {
  return value >= 1e-3 && value <= 1000 ? grouped(value) : value.toExponential(0);
}
