/** The front door: a recorded run that plays by itself, two ways on, and what a visitor may want to know first. */

import { FitPlot, sine } from "../../static/charts/fit_plot.js";
import { MODELS, perModel } from "../../static/charts/models.js";
import { heightInView } from "../../static/charts/plot.js";
import { SETTINGS, when } from "../../static/data/events.js";
import { kept } from "../../static/data/kept.js";
import { CHAPTERS, link } from "../../static/page/address.js";
import { chapterLink } from "../../static/page/chapter_link.js";
import { button, element } from "../../static/widgets/dom.js";
import { grouped, short } from "../../static/widgets/format.js";

const MILLISECONDS_A_FRAME = 70; // the whole run takes less than five seconds: what moves longer needs a way to stop it
const RUN = "qat"; // the chapter in which it happens
const FIRST = 1; // the place of the first chapter of the course

export async function mount(view, props) {
  const { source } = JSON.parse(props.value);
  const stage = element("div", "stage");
  view.append(stage, facts(source));
  const show = await player(stage);
  ways(stage);
  show();
}

/** @returns {Promise<() => void>} plays the run; whoever wants no motion sees its end */
async function player(parent) {
  const kinds = MODELS.map(({ key }) => key);
  const legend = MODELS.map(({ key, name }) => [key, name]);
  const plot = new FitPlot(parent, { title: "4 bits a weight, three ways to a sine", height: heightInView(), fits: kinds, legend });
  const line = element("div", "line-of-run");
  const words = element("p", "words");
  const again = button("Play again", () => play(), "plain");
  line.append(words, again);
  parent.append(line);
  const { steps, noisy, frames } = await kept("recorded.json", "the recorded run");
  const data = { noisy: noisy.map(whole), clean: sine() };

  const draw = ({ step, error, curves }) => {
    const drawn = Object.fromEntries(kinds.map((kind) => [kind, curves[kind].map(whole)]));
    plot.show(() => plot.drawData(data, drawn));
    words.textContent = `A recorded run, step ${grouped(step)} of ${grouped(steps)}. Error: ${perModel((key) => short(error[key]))}.`;
    parent.dataset.step = step;
  };
  const last = frames.at(-1);
  plot.describe(
    `A recorded run: three networks learn noisy points of a sine in ${grouped(steps)} steps. At its end the error against ` +
      `the sine is ${perModel((key) => short(last.error[key]))}.`,
  );
  let began = 0;
  const move = (now) => {
    const passed = Math.max(now - began, 0); // `now` is when the screen's frame began, which may be before
    const at = Math.min(Math.floor(passed / MILLISECONDS_A_FRAME), frames.length - 1);
    draw(frames[at]);
    again.disabled = at < frames.length - 1;
    if (again.disabled) requestAnimationFrame(move);
  };
  const play = () => {
    began = performance.now();
    requestAnimationFrame(move);
  };
  return () => {
    draw(matchMedia("(prefers-reduced-motion: reduce)").matches ? last : frames[0]);
    if (Number(parent.dataset.step) === 0) play();
  };
}

/** Curves come in hundredths. */
function whole(hundredths) {
  return hundredths / 100;
}

function ways(parent) {
  const line = element("div", "ways");
  const see = way(line, "See it happen", RUN, "the same run, trained now");
  see.addEventListener("click", (event) => {
    if (event.defaultPrevented) document.getElementById(`${RUN}-run`).click();
  });
  way(line, "Understand it", CHAPTERS[FIRST].key, "from the first chapter on");
  parent.append(line);
}

/** A link that looks like a button. */
function way(parent, text, key, about) {
  const anchor = element("a", "way");
  anchor.append(element("span", "name", text), element("span", "about", about));
  const update = () => (anchor.href = link(key));
  chapterLink(anchor, () => key);
  when(SETTINGS, () => queueMicrotask(update));
  update();
  parent.append(anchor);
  return anchor;
}

function facts(source) {
  const list = element("dl", "facts-of-the-course");
  const code = element("span", "", "shown beside what it computes, and in the folder that this page is served from");
  const there = element("a", "", "all of it, with its tests");
  there.href = source ?? "";
  const entries = [
    ["The course", `${CHAPTERS.length - FIRST} chapters of five to ten minutes: an hour and a half in all`],
    ["The source", source ? there : code],
    ["Yours", "`make app` serves this page on your machine; `pip install .` brings the library for your own networks"],
  ];
  for (const [name, text] of entries) {
    const about = element("dd");
    about.append(...(typeof text === "string" ? coded(text) : [text]));
    list.append(element("dt", "", name), about);
  }
  return list;
}

/** Text with `code` in it. */
function coded(text) {
  return text.split("`").map((part, i) => (i % 2 ? element("code", "", part) : part));
}
