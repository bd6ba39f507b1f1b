/** Chapter "sensitive": a bar a layer, what a budget of bytes buys, and healing by training. */

import { follow } from "../../static/data/follow.js";
import { chapterDone } from "../../static/page/done.js";
import { element } from "../../static/widgets/dom.js";
import { statusLine } from "../../static/widgets/status.js";
import { budget, budgetChart, lastWithin, listing, uniformBytes } from "./budget.js";
import { healingChart, unseenDigits, whatToHeal } from "./healing.js";
import { layerTable } from "./layer_table.js";

export function mount(view, props, watch) {
  // What the visitor has chosen here; the server learns of it when Heal is pressed.
  const choice = { heal: "worst", bits: 4, mix: 0 };
  let frame = null;
  const update = () => {
    view.dataset.choice = JSON.stringify(choice);
    view.dataset.running = Boolean(frame.running);
    for (const part of parts) part(frame, choice);
  };
  const choose = (changes) => {
    Object.assign(choice, changes);
    update();
  };

  const parts = [status(view), layerTable(view, choose), budget(view, choose), whatToHeal(view, choose)];
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

function status(parent) {
  const show = statusLine(parent, { unit: "", label: "Progress" });
  return (frame) => show({ ...frame, step: frame.done, steps: frame.total }, frame.words);
}
