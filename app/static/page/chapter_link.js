/** Links between chapters: real addresses, but a plain click stays on the page. */

import { go } from "./address.js";

/** @param {HTMLAnchorElement} anchor  @param {() => string} key  of the chapter  @param {() => void} before */
export function chapterLink(anchor, key, before = () => {}) {
  anchor.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    before();
    go(key());
    window.scrollTo(0, 0);
    focusTitle();
  });
}

/** Where a reader goes on after a change of chapter. */
export function focusTitle() {
  document.getElementById("chapter-title")?.focus({ preventScroll: true });
}
