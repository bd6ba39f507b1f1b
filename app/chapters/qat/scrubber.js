/** The way back through a run: a slider over its recorded frames. It asks no server. */

import { button, element } from "../../static/widgets/dom.js";
import { grouped } from "../../static/widgets/format.js";

export class Scrubber {
  /** @param {() => void} changed  another frame is looked at */
  constructor(parent, changed) {
    this.frames = [];
    this.step = null; // the step that is looked at; null follows the training
    this.isRunning = false;
    const bar = element("div", "scrubber");
    const label = element("label", "", "Look back");
    this.input = element("input");
    Object.assign(this.input, { type: "range", min: 0, step: 1, id: "scrubber" });
    label.htmlFor = "scrubber";
    const follow = () => {
      this.step = null;
      this.input.focus();
      changed();
    };
    this.live = button("Back to the newest", follow, "plain");
    this.where = element("span", "quiet");
    bar.append(label, this.input, this.where, this.live);
    parent.append(bar);

    this.input.addEventListener("input", () => {
      const at = Number(this.input.value);
      this.step = at === this.frames.length - 1 ? null : this.frames[at].step;
      changed();
    });
  }

  /** @param {object[]} frames  those of a run  @returns {object} the one to look at */
  choose(frames) {
    const { running } = frames.at(-1);
    if (frames !== this.frames || (running && !this.isRunning)) this.step = null; // another run, or Run was pressed
    this.isRunning = running;
    this.frames = frames;
    let at = frames.length - 1;
    if (this.step !== null) {
      at = frames.findIndex(({ step }) => step >= this.step);
      if (at < 0 || at === frames.length - 1) {
        this.step = null;
        at = frames.length - 1;
      }
    }
    const newest = frames.at(-1);
    const shown = frames[at];
    this.input.max = frames.length - 1;
    this.input.value = at;
    this.input.disabled = frames.length < 2;
    this.input.setAttribute("aria-valuetext", `step ${shown.step} of ${shown.steps}`);
    this.where.textContent = this.step === null ? "" : `step ${grouped(shown.step)}; the newest is ${grouped(newest.step)}`;
    this.live.hidden = this.step === null;
    return shown;
  }
}
