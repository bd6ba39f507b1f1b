/** Below the settings: what a change does, and the settings that few need. */

import { SETTINGS, when } from "../data/events.js";
import { button, element } from "../widgets/dom.js";
import { settings } from "./address.js";

const RARE = ["width", "learning_rate"];

export function mount(view, props) {
  const defaults = JSON.parse(props.value);
  const more = button("", () => open(more.getAttribute("aria-expanded") !== "true"), "plain");
  view.append(element("p", "quiet", "Changing a setting starts anew at step 0."), more);

  const open = (isOpen) => {
    document.documentElement.toggleAttribute("data-more", isOpen);
    more.setAttribute("aria-expanded", String(isOpen));
    more.textContent = isOpen ? "Fewer settings" : "More settings";
  };
  const differs = () => RARE.some((name) => settings()[name] !== defaults[name]);
  when(SETTINGS, () => differs() && open(true));
  open(differs());
}
