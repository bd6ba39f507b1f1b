/** The title of the open chapter, and what the page did not understand of its address. */

import { CHAPTER, when } from "../data/events.js";
import { follow } from "../data/follow.js";
import { element } from "../widgets/dom.js";
import { CHAPTERS, place } from "./address.js";

export function mount(view, props, watch) {
  const title = element("h2");
  title.id = "chapter-title";
  title.tabIndex = -1;
  const notices = element("div", "notices");
  notices.setAttribute("role", "status");
  view.append(title, notices);

  const update = () => {
    title.textContent = CHAPTERS[place()].title;
  };
  when(CHAPTER, update);
  update();

  follow(props, watch, ({ problems }) => {
    notices.replaceChildren(...problems.map((text) => element("p", "problem", text)));
  });
}
