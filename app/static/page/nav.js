/** The chapters: a list at the side, a menu on a phone. Their links are real ones, but stay on the page. */

import { CHAPTER, SETTINGS, TICKS, when } from "../data/events.js";
import { button, element } from "../widgets/dom.js";
import { CHAPTERS, link, place } from "./address.js";
import { chapterLink, focusTitle } from "./chapter_link.js";
import { isDone } from "./done.js";
import { linkTools } from "./link_tools.js";

const FIRST = 1; // the place of chapter 0; before it comes the front door

export function mount(view, props, watch, trigger) {
  const skip = element("a", "skip", "Skip to the chapter");
  skip.href = "#chapter-title";
  skip.addEventListener("click", (event) => {
    event.preventDefault();
    focusTitle();
  });

  const menu = button("", () => openMenu(menu.getAttribute("aria-expanded") !== "true"), "menu");
  menu.setAttribute("aria-controls", "chapter-list");
  const list = element("ol");
  list.id = "chapter-list";
  const links = CHAPTERS.map(({ key, title }) => {
    const item = element("li");
    const anchor = element("a");
    const tick = element("span", "tick", "✓");
    tick.setAttribute("role", "img");
    tick.setAttribute("aria-label", "done");
    anchor.append(element("span", "", title), tick);
    chapterLink(anchor, () => key);
    item.append(anchor);
    list.append(item);
    return { key, anchor, tick };
  });
  const nav = element("nav");
  nav.setAttribute("aria-label", "Chapters");
  nav.append(element("h1", "", props.value), menu, list);
  view.append(skip, nav, linkTools());

  const openMenu = (isOpen) => {
    menu.setAttribute("aria-expanded", String(isOpen));
    view.classList.toggle("open", isOpen);
  };
  view.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || menu.getAttribute("aria-expanded") !== "true") return;
    openMenu(false);
    menu.focus();
  });

  const update = () => {
    const open = place();
    const number = open - FIRST; // as in the list
    menu.textContent = number < 0 ? CHAPTERS[open].title : `Chapter ${number}: ${CHAPTERS[open].title}`;
    for (const [i, { key, anchor, tick }] of links.entries()) {
      anchor.href = link(key);
      if (i === open) anchor.setAttribute("aria-current", "page");
      else anchor.removeAttribute("aria-current");
      tick.hidden = !isDone(key);
    }
  };
  let left = place();
  when(CHAPTER, () => {
    openMenu(false);
    update();
    if (left >= FIRST) trigger("select"); // a run that nobody sees any more ends; at the front door none begins
    left = place();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && document.querySelector('.view[data-running="true"]')) trigger("select"); // nor one in a tab behind
  });
  when(TICKS, update);
  when(SETTINGS, () => queueMicrotask(update));
  openMenu(false);
  update();
}
