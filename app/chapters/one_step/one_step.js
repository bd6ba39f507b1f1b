/** Chapter "one step": pick a weight, then follow it through one optimizer step, a stage at a time. */

import { SETTINGS, when } from "../../static/data/events.js";
import { follow } from "../../static/data/follow.js";
import { eachFrame } from "../../static/data/recording.js";
import { settings } from "../../static/page/address.js";
import { chapterDone } from "../../static/page/done.js";
import { button, element } from "../../static/widgets/dom.js";
import { grouped, readable } from "../../static/widgets/format.js";
import { numbersTable } from "../../static/widgets/table.js";
import { card } from "./card.js";
import { loop } from "./loop.js";
import { matrix } from "./matrix.js";
import { PATIENCE, Questions } from "./questions.js";
import { originOf, stagesOf, valuesOf } from "./stages.js";

const STRIDES = [1, 25, 100];

export function mount(view, props, watch, trigger) {
  const sources = JSON.parse(props.sources);
  let frame = null;
  let at = 0;

  const send = (event, about) => {
    const { layer, row, col, matrix } = frame;
    trigger(event, { layer, row, col, has: matrix, ...about });
  };
  const questions = new Questions(send, (isWaiting) => view.setAttribute("aria-busy", String(isWaiting)));
  const ask = (cell) => questions.ask("select", cell);
  const take = (steps) => questions.ask("submit", { steps });
  const turnTo = (stage) => {
    at = Math.max(0, Math.min(stagesOf(frame).length - 1, stage));
    draw();
  };

  const strip = steps(view, take);
  const bench = element("div", "bench");
  const way = element("div", "way");
  bench.append(way);
  view.append(bench);
  const look = (cell) => questions.soon(cell);
  const parts = [strip.draw, loop(way, turnTo), card(way, sources, turnTo, take), tables(way), matrix(bench, ask, look)];

  const draw = () => {
    const stages = stagesOf(frame);
    at = Math.min(at, stages.length - 1);
    view.dataset.step = frame.step;
    view.dataset.stage = stages[at].key;
    if (at === stages.length - 1) chapterDone("one_step");
    for (const part of parts) part(frame, stages, at);
  };
  const takeIn = (latest) => {
    if (latest.busy) {
      setTimeout(() => ask({}), 2 * PATIENCE);
      return;
    }
    strip.complain(latest.problem);
    if (latest.problem) return;
    const key = frame && stagesOf(frame)[at].key;
    frame = { codes: frame?.codes, flips: frame?.flips, ...latest }; // a matrix that is here is not sent again
    if (key) at = Math.max(0, stagesOf(frame).findIndex((stage) => stage.key === key));
    draw();
  };
  follow(props, watch, (latest) => {
    if (questions.isWorthDrawing(latest.asked)) takeIn(latest);
    questions.next();
  });
  keepUpToDate(view, () => look({}), () => questions.hold());
  eachFrame(view, () => questions.release());
}

/** The training may have moved on, or begun anew, while this chapter was out of sight or the settings changed. */
function keepUpToDate(view, ask, hold) {
  let seen = true; // what was drawn first is up to date
  let known = String(Object.values(settings())); // those of the network that was drawn first
  new ResizeObserver(([{ contentRect }]) => {
    const visible = contentRect.width > 0;
    if (visible && !seen) ask();
    seen = visible;
  }).observe(view);
  when(SETTINGS, (values) => {
    const isOther = String(values) !== known;
    known = String(values);
    if (seen && isOther) hold();
    if (seen) ask();
  });
  ask();
}

// Each part builds its nodes once and returns the function that updates them.

/** How far the training is, and the buttons that move it on. */
function steps(parent, take) {
  const strip = element("div", "strip");
  const count = element("p", "step");
  const buttons = STRIDES.map((stride) => button(stride === 1 ? "Take 1 step" : `${stride} steps`, () => take(stride)));
  const words = element("p", "problem");
  words.setAttribute("role", "status");
  strip.append(count, ...buttons, words);
  parent.append(strip);
  return {
    complain: (problem) => (words.textContent = problem),
    draw: (frame) => {
      const over = frame.step >= frame.steps;
      count.textContent = over
        ? `All ${grouped(frame.steps)} steps are taken. One more, seen from inside: the learning rate is 0`
        : `Step ${grouped(frame.step + 1)} of ${grouped(frame.steps)}, seen from inside`;
      for (const node of buttons) node.disabled = over;
    },
  };
}

/** Everything at once, for those who read rather than look. */
function tables(parent) {
  const box = element("div");
  parent.append(box);
  const numbers = numbersTable(box, "All numbers of the step", ["Value", "Where it comes from"]);
  const columns = ["x", "Output", "Without the weight", "Prediction", "Data", "Part of the gradient"];
  const curves = numbersTable(box, "The curves of the step", columns);
  return (frame) => {
    const values = Object.entries(valuesOf(frame)).filter(([name]) => originOf(name, frame));
    numbers(() => values.map(([name, value]) => [readable(value), originOf(name, frame)]));
    const { x, y, rest, prediction, target, parts } = frame.curves;
    curves(() => x.map((_, i) => [x, y, rest, prediction, target, parts].map((column) => readable(column[i]))));
  };
}
