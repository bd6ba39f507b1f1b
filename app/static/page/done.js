/** Which chapters the visitor has done, kept in this browser. */

import { CHAPTERS } from "./address.js";

const STORE = "qat-lab.done";
const done = new Set(read());

export function isDone(key) {
  return done.has(key);
}

/** The visitor has done what the chapter is about. */
export function chapterDone(key) {
  window.dispatchEvent(new CustomEvent("chapter-done", { detail: key }));
}

window.addEventListener("chapter-done", ({ detail }) => {
  if (done.has(detail) || !CHAPTERS.some(({ key }) => key === detail)) return;
  done.add(detail);
  try {
    localStorage.setItem(STORE, JSON.stringify([...done]));
  } catch {
    // A browser that keeps nothing shows the ticks until the page is left.
  }
  window.dispatchEvent(new CustomEvent("ticks"));
});

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    return CHAPTERS.map(({ key }) => key).filter((key) => kept.includes(key));
  } catch {
    return [];
  }
}
