/** The settings fold away: those that few need, and on a small screen all of them behind what they are now. */

import { CHAPTER, SETTINGS, when } from "../data/events.js";
import { button, element } from "../widgets/dom.js";
import { CHAPTERS, hiddenNames, place, settings } from "./address.js";
import { NAMED, inWords } from "./in_words.js";

const RARE = ["width", "learning_rate"];
const SMALL = window.matchMedia("(max-width: 999px), (max-height: 650px)"); // as in head.css

export function mount(view, props) {
  const defaults = JSON.parse(props.value);
  let isOpen = false;
  const more = button("", () => open(!isOpen), "plain");
  view.append(element("p", "quiet", "Changing a setting starts anew at step 0."), more);

  const differs = (name) => settings()[name] !== defaults[name];
  const open = (wanted) => {
    isOpen = wanted;
    update();
  };
  const update = () => {
    document.documentElement.toggleAttribute("data-more", isOpen);
    more.setAttribute("aria-expanded", String(isOpen));
    if (SMALL.matches) more.textContent = isOpen ? "Fold the settings away" : ["Settings", ...summary(differs)].join(" · ");
    else more.textContent = isOpen ? "Fewer settings" : "More settings";
  };
  when(SETTINGS, () => (!SMALL.matches && RARE.some(differs) ? open(true) : update()));
  when(CHAPTER, update);
  SMALL.addEventListener("change", update);
  open(!SMALL.matches && RARE.some(differs));
}

/** The settings that the chapter uses as they are now; the rare ones where they are not as ever. @returns {string[]} */
function summary(differs) {
  const hidden = hiddenNames();
  const shown = CHAPTERS[place()].uses.filter((name) => !hidden.has(name) && (!RARE.includes(name) || differs(name)));
  return Object.keys(NAMED).filter((name) => shown.includes(name)).map((name) => inWords(name, settings()[name]));
}
