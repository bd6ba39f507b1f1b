/** How far the work is: step, bar, words. */

import { element } from "./dom.js";
import { grouped } from "./format.js";
import { spoken } from "./spoken.js";

/** @param {{ unit?: string }} options  no unit: the words say how far it is  @returns {(frame: { step, steps, running, problem, note?, device?, speed? }, words: string) => void} */
export function statusLine(parent, { unit = "Step", label = "Training" } = {}) {
  const status = element("div", "status");
  const progress = element("div");
  const step = element("span", "step");
  const bar = element("progress");
  bar.setAttribute("aria-label", label);
  const where = element("span", "where quiet");
  progress.append(step, bar, where);
  status.append(progress);
  const say = spoken(status);
  const note = element("p", "note quiet");
  status.append(note);
  parent.append(status);
  return (frame, words) => {
    if (unit) step.textContent = `${unit} ${grouped(frame.step)} of ${grouped(frame.steps)}`;
    bar.max = frame.steps;
    bar.value = frame.step;
    say(frame.problem || words, { patient: Boolean(frame.running), problem: Boolean(frame.problem), step: frame.step });
    where.textContent = [frame.device, frame.speed && `${grouped(frame.speed)} steps/s`].filter(Boolean).join(", ");
    note.textContent = frame.note ?? "";
  };
}
