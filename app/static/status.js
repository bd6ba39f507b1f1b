/** How far the training is: step, bar, and words that change no more often than they can be read. */

import { element } from "./models.js";

const SECONDS_BETWEEN_WORDS = 2.5; // while training: a sentence takes time to read, and to be read aloud

/** @returns {(frame: object, words: string) => void} */
export function statusLine(parent) {
  const status = element("div", "status");
  const progress = element("div");
  const step = element("span", "step");
  const bar = element("progress");
  bar.setAttribute("aria-label", "Training");
  progress.append(step, bar);
  const words = element("p", "words");
  words.setAttribute("aria-live", "polite");
  const note = element("p", "note quiet");
  status.append(progress, words, note);
  parent.append(status);
  const say = patiently(words);
  return (frame, text) => {
    step.textContent = `Step ${grouped(frame.step)} of ${grouped(frame.steps)}`;
    bar.max = frame.steps;
    bar.value = frame.step;
    say(frame.problem || text, frame.running);
    note.textContent = frame.note;
    words.classList.toggle("problem", Boolean(frame.problem));
  };
}

/** A function that changes the words at most every few seconds while training, and at once otherwise. */
export function patiently(node) {
  let last = -Infinity;
  return (text, running) => {
    const now = performance.now() / 1000;
    if (running && now - last < SECONDS_BETWEEN_WORDS) return;
    last = now;
    if (node.textContent !== text) node.textContent = text;
  };
}

export function grouped(count) {
  return count.toLocaleString("en");
}
