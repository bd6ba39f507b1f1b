/** The numbers on their way: forward to the loss, and back to the weight. */

import { button, element } from "../../static/widgets/dom.js";
import { readable } from "../../static/widgets/format.js";

export function loop(parent, turnTo) {
  const nav = element("nav", "loop");
  nav.setAttribute("aria-label", "Stages of the step");
  parent.append(nav);
  let chips = [];
  let built = "";

  const build = (stages) => {
    built = String(stages.map(({ key }) => key));
    const rows = [element("ol", "out"), element("ol", "back")];
    chips = stages.map((stage, i) => {
      const item = element("li", stage.pass);
      const first = stages[i - 1]?.pass !== stage.pass;
      item.append(element("span", "pass", first ? stage.pass : ""));
      const chip = button("", () => turnTo(i));
      chip.append(element("span", "chip", stage.chip), element("span", "value"));
      item.append(chip);
      rows[stage.pass === "forward" ? 0 : 1].append(item);
      return chip;
    });
    nav.replaceChildren(...rows);
  };
  nav.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const from = chips.indexOf(document.activeElement);
    if (!move || from < 0) return;
    event.preventDefault();
    const to = chips[Math.max(0, Math.min(chips.length - 1, from + move))];
    to.focus();
    to.click();
  });

  return (frame, stages, at) => {
    if (built !== String(stages.map(({ key }) => key))) build(stages);
    stages.forEach((stage, i) => {
      const chip = chips[i];
      const reached = i <= at;
      chip.tabIndex = i === at ? 0 : -1;
      if (i === at) chip.setAttribute("aria-current", "step");
      else chip.removeAttribute("aria-current");
      chip.classList.toggle("ahead", !reached);
      chip.lastChild.textContent = reached ? brief(frame.numbers[stage.value]) : "·";
      chip.setAttribute("aria-label", `${stage.title}${reached ? `: ${readable(frame.numbers[stage.value])}` : ""}`);
    });
  };
}

/** Three digits for the loop. */
function brief(value) {
  if (Number.isInteger(value)) return readable(value);
  const size = Math.abs(value);
  return (size >= 1e-3 && size < 1e4 ? value.toPrecision(3) : value.toExponential(1)).replaceAll("-", "−");
}
