/** The title of the open chapter and what it is about, and what the page did not understand of its address. */

import { CHAPTER, NOTICE, when } from "../data/events.js";
import { follow } from "../data/follow.js";
import { element } from "../widgets/dom.js";
import { CHAPTERS, place } from "./address.js";
import { watchConnection } from "./connection.js";
import { keepInView } from "./in_view.js";

export function mount(view, props, watch) {
  const title = element("h2");
  title.id = "chapter-title";
  title.tabIndex = -1;
  const lead = element("p", "lead");
  const notices = element("div", "notices");
  notices.setAttribute("role", "status");
  view.append(title, lead, notices);

  const said = new Map(); // about what -> sentences
  const sayAll = () => notices.replaceChildren(...[...said.values()].flat().map((text) => element("p", "problem", text)));
  when(NOTICE, ([about, text]) => {
    said.set(about, text ? [text] : []);
    sayAll();
  });

  const update = () => {
    title.textContent = CHAPTERS[place()].title;
    lead.textContent = CHAPTERS[place()].lead;
  };
  when(CHAPTER, update);
  update();
  keepInView();

  follow(props, watch, ({ problems }) => {
    said.set("address", problems);
    sayAll();
  });
  watchConnection();
}
