/** Words that are read aloud, and that change no more often than they can be read. */

import { element } from "./dom.js";

const SECONDS = 2.5; // a sentence takes time to read, and to be read aloud

/**
 * @returns {(text: string, about?: { patient?: boolean, problem?: boolean }) => void}  patient words wait until the
 *     last have had their time, and only the latest of those that wait are said; all others are said at once
 */
export function spoken(parent, className = "words") {
  const line = element("p", className);
  line.setAttribute("aria-live", "polite");
  parent.append(line);
  let last = -Infinity;
  let waiting = 0;
  let latest = "";
  const write = () => {
    clearTimeout(waiting);
    waiting = 0;
    last = performance.now();
    if (line.textContent !== latest) line.textContent = latest;
  };
  return (text, { patient = true, problem = false } = {}) => {
    latest = text;
    line.classList.toggle("problem", problem);
    const due = last + 1000 * SECONDS - performance.now();
    if (!patient || due <= 0) write();
    else waiting ||= setTimeout(write, due);
  };
}
