/** Losses over the steps of a run, on a log scale. */

import { grouped } from "../widgets/format.js";
import { Plot, decades } from "./plot.js";

export class LossPlot extends Plot {
  /**
   * @param {[string, string, (frame: object) => number][]} series  kind of line, its name, its value in a frame
   * @param {[string, string][]} more  other lines of the legend
   */
  constructor(parent, { title, height, series, more = [] }) {
    super(parent, {
      title,
      height,
      x: { ...quarters(2000), title: "optimizer step" },
      y: decades([], -3, 1),
      legend: [...series.map(([kind, name]) => [kind, name]), ...more],
    });
    this.floor = this.line("floor");
    this.now = this.line("now");
    this.series = series.map(([kind, , value]) => ({ value, line: this.line(kind), head: this.line(`head ${kind}`) }));
  }

  /** @param {object[]} frames  @param {object} shown  the one that is looked at  @param {number} floor  0 is none */
  drawRun(frames, shown, floor = 0) {
    const steps = frames.map(({ step }) => step);
    const values = this.series.map(({ value }) => frames.map(value));
    this.setAxis("x", quarters(shown.steps));
    this.setAxis("y", decades([...values.flat(), floor], -3, 1));
    this.series.forEach(({ value, line, head }, i) => {
      line.setAttribute("d", this.through(steps, values[i]));
      head.setAttribute("d", this.dots([shown.step], [value(shown)]));
    });
    this.floor.setAttribute("d", floor ? this.through([0, shown.steps], [floor, floor]) : "");
    const isPast = shown !== frames.at(-1);
    this.now.setAttribute("d", isPast ? this.through([shown.step, shown.step], this.y.domain) : "");
  }
}

/** An axis from 0 in four equal parts. */
function quarters(end) {
  return { domain: [0, end], ticks: [0, 1, 2, 3, 4].map((i) => (i * end) / 4), format: grouped };
}
