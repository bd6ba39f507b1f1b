/** Which chapters the visitor has done, kept in this browser. */

import { CHAPTER_DONE, TICKS, tell, when } from "../data/events.js";
import { CHAPTERS } from "./address.js";

const STORE = "qat-lab.done";
const done = new Set(read());

export function isDone(key) {
  return done.has(key);
}

/** The visitor has done what the chapter is about. */
export function chapterDone(key) {
  tell(CHAPTER_DONE, key);
}

when(CHAPTER_DONE, (key) => {
  if (done.has(key) || !CHAPTERS.some((chapter) => chapter.key === key)) return;
  done.add(key);
  try {
    localStorage.setItem(STORE, JSON.stringify([...done]));
  } catch {
    // A browser that keeps nothing shows the ticks until the page is left.
  }
  tell(TICKS);
});

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    return CHAPTERS.map(({ key }) => key).filter((key) => kept.includes(key));
  } catch {
    return [];
  }
}
