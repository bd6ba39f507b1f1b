/** A bar a layer: the damage when only this layer is rounded, on a logarithmic axis; its bits and bytes in the mix. */

import { choice } from "../../static/widgets/controls.js";
import { element } from "../../static/widgets/dom.js";
import { grouped, percent, short, times } from "../../static/widgets/format.js";
import { headCell, headed, numbersTable } from "../../static/widgets/table.js";

export const WIDTHS = [2, 3, 4, 8];

export function layerTable(parent, choose) {
  const options = WIDTHS.map((width) => [width, `${width} bits`]);
  const show = choice(parent, { label: "One layer is rounded to", options, value: 4, set: (bits) => choose({ bits }) });
  const { table, body, heads } = headed(["Layer", "", "In the mix", "Bytes"], { className: "layers" });
  const foot = table.createTFoot().insertRow();
  const scaleCell = element("td", "scale");
  const scale = element("div");
  scale.setAttribute("aria-hidden", "true");
  scaleCell.append(scale);
  const share = element("td");
  const total = element("td", "bytes");
  foot.append(element("td", "", "all layers"), scaleCell, share, total);
  parent.append(table);
  const everyNumber = numbersTable(parent, "One layer rounded", ["Layer", "Weights", ...options.map(([, name]) => name)]);

  let drawn = "";
  let rows = [];
  return (frame, { bits, mix }) => {
    show(bits);
    everyNumber(() => frame.layers.map(({ name, elements, metric }) => [name, grouped(elements), ...(metric ?? []).map(short)]));
    heads[1].textContent = `${frame.metric} with only this layer at ${bits} bits`;
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
      drawHealed(row, frame, i, bits);
      drawBits(row, chosen?.bits[i]);
      row.bytes.textContent = chosen ? grouped(Math.ceil((frame.layers[i].elements * chosen.bits[i]) / 8)) : "–";
    });
    total.textContent = chosen ? grouped(chosen.bytes) : "–";
    share.textContent = chosen ? `${percent(chosen.bytes / frame.layers.reduce((sum, { elements }) => sum + 4 * elements, 0), 2)} of FP32` : "";
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
  amount.textContent = known ? `${short(metric)}, ${compared(metric, baseline)}${isWorst ? " · most fragile" : ""}` : "not scanned yet";
  row.classList.toggle("worst", isWorst);
}

function drawHealed({ healed, amount }, { healing, baseline, layers, ...frame }, i, bits) {
  const isHealed = healing && healing.layer === layers[i].name && healing.bits[0] === bits && healing.step > 0;
  healed.style.width = isHealed ? `${(100 * decadesAbove(healing.history.at(-1)[1], baseline)) / farthest({ baseline, layers, ...frame })}%` : "0";
  healed.hidden = !isHealed;
  if (isHealed) amount.textContent += ` · healed to ${short(healing.history.at(-1)[1])}`;
}

function drawBits({ cells, count }, bits) {
  [...cells.children].forEach((cell, i) => cell.classList.toggle("on", bits !== undefined && i < bits));
  count.textContent = bits === undefined ? "–" : `${bits} bits`;
}

function worstOf({ layers, baseline }, bits) {
  const column = WIDTHS.indexOf(bits);
  if (layers.some(({ metric }) => metric === null)) return null;
  const damage = layers.map(({ metric }) => Math.abs(metric[column] - baseline));
  return damage.indexOf(Math.max(...damage));
}

/** How many decades above the float network the bars reach, whole ones and at least two. */
function farthest({ layers, baseline, healing }) {
  const values = layers.flatMap(({ metric }) => metric ?? []).concat(healing?.history.map(([, m]) => m) ?? []);
  return Math.max(2, ...values.map((value) => Math.ceil(decadesAbove(value, baseline))));
}

function decadesAbove(value, baseline) {
  return Math.max(0, Math.log10(Math.max(value, 1e-12) / Math.max(baseline, 1e-12)));
}

function compared(value, baseline) {
  return value / Math.max(baseline, 1e-12) < 1.05 ? "as FP32" : `${times(value, baseline)} × FP32`;
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
