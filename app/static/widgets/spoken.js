/** Words that are read aloud, and that change no more often than they can be read. What they say of a step long gone they
 * say with its number; words of no step, or of another run, give way at once. */

import { element } from "./dom.js";

const SECONDS = 2.5; // a sentence takes time to read, and to be read aloud

/**
 * @returns {(text: string, about?: { patient?: boolean, problem?: boolean, step?: number, alongside?: () => void }) => void}
 *     patient words wait until the last have had their time, and only the latest of those that wait are said; all others
 *     are said at once, and so are the first of a run. `step` is of what the words are; `alongside` draws the figures that
 *     belong to them
 */
export function spoken(parent, className = "words") {
  const line = element("p", className);
  line.setAttribute("aria-live", "polite");
  parent.append(line);
  let last = -Infinity;
  let waiting = 0;
  let latest = "";
  let before = 0; // the step
  let draw = () => {};
  const write = () => {
    clearTimeout(waiting);
    waiting = 0;
    last = performance.now();
    if (line.textContent !== latest) line.textContent = latest;
    draw();
  };
  return (text, { patient = true, problem = false, step = Infinity, alongside = () => {} } = {}) => {
    latest = text;
    draw = alongside;
    const isFirst = before === 0 || step < before;
    before = step;
    line.classList.toggle("problem", problem);
    const due = last + 1000 * SECONDS - performance.now();
    if (!patient || isFirst || due <= 0) write();
    else waiting ||= setTimeout(write, due);
  };
}
