/** One stage: its formula with the real numbers, its picture, and the lines of source that do it. */

import { button, element, region } from "../../static/widgets/dom.js";
import { readable } from "../../static/widgets/format.js";
import { Numbers } from "./numbers.js";
import { originOf, valuesOf } from "./stages.js";
import { Pictures } from "./step_pictures.js";

export function card(parent, sources, turnTo, take) {
  const section = element("section", "stage");
  const title = element("h3");
  const formula = element("div", "formula");
  const words = element("p", "words");
  const told = element("div", "told");
  told.append(title, formula, words);
  const spoken = element("p", "spoken");
  spoken.setAttribute("aria-live", "polite");
  const shown = element("div", "shown");
  const pictures = new Pictures(shown);
  const source = element("figure", "source listing");
  const turns = element("div", "turns");
  const back = button("Back", () => turnTo(now - 1));
  const next = button("Next", () => (now < last ? turnTo(now + 1) : (turnTo(0), take(1))), "primary");
  turns.append(back, next);
  section.append(turns, told, shown, source, spoken);
  parent.append(section);
  const numbers = new Numbers(section);
  let now = 0;
  let last = 0;

  return (frame, stages, at) => {
    const stage = stages[at];
    [now, last] = [at, stages.length - 1];
    const values = valuesOf(frame);
    const line = (text) => numbers.text(text, values, (name) => originOf(name, frame));
    numbers.hide();
    title.textContent = `${at + 1}. ${stage.title}`;
    formula.replaceChildren(...stage.formula.map(line));
    formula.classList.toggle("lines", formula.childElementCount > 1);
    words.replaceChildren(line(stage.words));
    spoken.textContent = `Stage ${at + 1} of ${stages.length}, ${title.textContent}: ${readable(values[stage.value])}`;
    pictures.show(stage, frame, values);
    listing(source, sources[`${stage.key}.${frame.rule}`] ?? sources[stage.key]);
    back.disabled = at === 0;
    next.textContent = at < last ? "Next" : "Take the step";
    next.disabled = at === last && frame.step >= frame.steps;
  };
}

/** Our own code, coloured on the server. */
function listing(figure, { file, name, lines }) {
  const code = region(element("pre"), `${file}: ${name}`);
  for (const [number, html, marked] of lines) {
    const line = element(marked ? "mark" : "span", "code-line");
    line.dataset.number = number || "";
    line.innerHTML = html;
    code.append(line);
  }
  figure.replaceChildren(element("figcaption", "", `${file}: ${name}`), code);
}
