/** Previous and Next, at the foot of every chapter. */

import { CHAPTER, SETTINGS, when } from "../data/events.js";
import { element } from "../widgets/dom.js";
import { CHAPTERS, link, place } from "./address.js";
import { chapterLink } from "./chapter_link.js";
import { chapterDone } from "./done.js";

export function mount(view) {
  const nav = element("nav", "pager");
  nav.setAttribute("aria-label", "Previous and next chapter");
  const goOn = () => chapterDone(CHAPTERS[place()].key); // who goes on has done this one
  const update = [direction(nav, "Previous", -1), direction(nav, "Next", +1, goOn)];
  view.append(nav);
  const all = () => update.forEach((one) => one());
  when(CHAPTER, all);
  when(SETTINGS, () => queueMicrotask(all));
  all();
}

function direction(nav, name, way, before) {
  const anchor = element("a", name.toLowerCase());
  const title = element("span", "title");
  anchor.append(element("span", "quiet", name), title);
  const target = () => CHAPTERS[place() + way];
  chapterLink(anchor, () => target().key, before);
  nav.append(anchor);
  return () => {
    anchor.hidden = !target();
    if (!target()) return;
    anchor.href = link(target().key);
    title.textContent = target().title;
  };
}
