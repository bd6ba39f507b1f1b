/** Questions with one right answer each, graded here. */

import { chapterDone } from "../../static/page/done.js";
import { element } from "../../static/widgets/dom.js";

export function mount(view, props) {
  const form = element("form", "quiz");
  form.noValidate = true;
  const questions = JSON.parse(props.value).map((question, i) => ask(form, question, i));
  const foot = element("div", "grade");
  const check = element("button", "check", "Check my answers");
  check.type = "submit";
  const score = element("p", "score");
  score.setAttribute("aria-live", "polite");
  foot.append(check, score);
  form.append(foot);
  view.append(form);

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const results = questions.map((grade) => grade());
    const right = results.filter((result) => result === true).length;
    const open = results.flatMap((result, i) => (result === null ? [i + 1] : []));
    score.textContent = `${right} of ${results.length} right.${verdict(right, results.length, open)}`;
    if (!open.length) chapterDone("your_turn");
  });
}

function verdict(right, all, open) {
  if (open.length) return ` No answer yet: ${open.length === 1 ? "question" : "questions"} ${open.join(", ")}.`;
  return right === all ? " That is all of it." : " Change an answer and check again.";
}

/** @returns {() => boolean | null} grades the question: right, wrong, or null where nothing is chosen */
function ask(parent, { question, options }, number) {
  const box = element("fieldset");
  const title = element("legend", "", `${number + 1}. ${question}`);
  const why = element("p", "why");
  why.id = `quiz-why-${number}`;
  const choices = options.map(({ text }, i) => {
    const label = element("label");
    const input = element("input");
    Object.assign(input, { type: "radio", name: `quiz-${number}`, value: i });
    input.setAttribute("aria-describedby", why.id);
    input.addEventListener("change", clear);
    const words = element("span", "", `${text} `);
    const grading = element("span", "grading");
    words.append(grading);
    label.append(input, words);
    return { label, input, grading };
  });
  box.append(title, ...choices.map(({ label }) => label), why);
  parent.append(box);

  function clear() {
    why.textContent = "";
    for (const { label, grading } of choices) {
      grading.textContent = "";
      label.classList.remove("right", "wrong");
    }
  }

  return () => {
    clear();
    const chosen = choices.findIndex(({ input }) => input.checked);
    if (chosen < 0) return null;
    const isRight = Boolean(options[chosen].right);
    choices[chosen].grading.textContent = isRight ? "✓ right" : "✗ not this one";
    choices[chosen].label.classList.add(isRight ? "right" : "wrong");
    why.textContent = options[chosen].why;
    return isRight;
  };
}
