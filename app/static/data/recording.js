/**
 * All frames of the visitor's runs, kept in this browser. The server says only what is now; curves of losses and the
 * way back through a run are made of what was said before.
 */

import { comesAfterPause, oncePerFrame } from "./follow.js";

const MOST_RUNS = 6;
const runs = new Map(); // key of the settings -> run, the newest last
const newest = new Map(); // preset -> run
const listeners = new Set();

/**
 * @typedef {object} Run
 * @property {object[]} frames  by step
 * @property {number[]} noisy  the points; @property {number} floor  the loss of the sine itself on them
 */

/** Take in a frame: it follows those of earlier steps, and replaces those of later ones. */
export function add(frame) {
  if (frame.unasked && isOutdated(frame)) return;
  const run = runs.get(frame.key) ?? { frames: [], noisy: [], floor: 0 };
  const { frames } = run;
  while (frames.length && frames.at(-1).step >= frame.step) frames.pop();
  frame.map ??= frames.at(-1)?.map; // lean frames leave out what changes slowly
  frames.push(frame);
  if (frame.noisy) Object.assign(run, { noisy: frame.noisy, floor: frame.floor });
  runs.delete(frame.key);
  runs.set(frame.key, run);
  if (runs.size > MOST_RUNS) runs.delete(runs.keys().next().value);
  newest.set(frame.preset, run);
  const isBrokenShown = last()?.frames.at(-1).preset;
  if (!(frame.unasked && isBrokenShown)) newest.set("shown", run);
  if (comesAfterPause(frame)) return;
  for (const listener of listeners) listener();
}

/** A run has begun or a step was taken since the frame was asked for. */
function isOutdated({ key, step }) {
  const now = own()?.frames.at(-1);
  return Boolean(now) && (now.running || (now.key === key && now.step > step));
}

/** The run of the visitor's own network. @returns {Run | undefined} */
export function own() {
  return newest.get("");
}

/** The run that the last frame belongs to, whether broken on purpose or not. @returns {Run | undefined} */
export function last() {
  return newest.get("shown");
}

/** Draw now, after every new frame and when it comes into sight, once a screen refresh at most and only while seen. */
export function eachFrame(root, draw) {
  const soon = oncePerFrame(() => root.clientWidth > 0 && draw());
  listeners.add(soon);
  new ResizeObserver(soon).observe(root);
  draw();
}
