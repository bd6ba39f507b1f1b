/** The chart of the sine: noisy points, the clean curve, and any number of fits. */

import { Plot } from "./plot.js";

const PI = Math.PI;
const X = { domain: [-PI, PI], ticks: [-PI, -PI / 2, 0, PI / 2, PI], title: "x" };
const X_NAMES = ["−π", "−π/2", "0", "π/2", "π"];

export class FitPlot extends Plot {
  /** @param {string[]} fits kinds of line, bottom to top */
  constructor(parent, { title, height, fits, legend }) {
    const x = { ...X, format: (v) => X_NAMES[X.ticks.indexOf(v)] };
    super(parent, { title, height, x, y: { ...symmetric(2), format: minus }, legend: [["noisy", "noisy points"], ["clean", "sin(2x)"], ...legend] });
    this.noisy = this.line("noisy");
    this.clean = this.line("clean");
    this.fits = Object.fromEntries(fits.map((kind) => [kind, this.line(kind)]));
  }

  /** @param {{ noisy: number[], clean: number[] }} data  @param {Object<string, number[]>} curves */
  drawData(data, curves) {
    this.setAxis("y", symmetric(Math.max(2, Math.ceil(Math.max(...data.noisy.map(Math.abs))))));
    if (data.noisy !== this.points || this.width !== this.pointsWidth) {
      this.points = data.noisy; // they stay the same through a run
      this.pointsWidth = this.width;
      this.noisy.setAttribute("d", this.dots(evenly(data.noisy.length), data.noisy));
      this.clean.setAttribute("d", this.through(evenly(data.clean.length), data.clean));
    }
    for (const [kind, path] of Object.entries(this.fits)) {
      const curve = curves[kind] ?? [];
      path.setAttribute("d", this.through(evenly(curve.length), curve));
    }
  }
}

/** The fits may leave the plot, the points may not. */
function symmetric(reach) {
  return { domain: [-reach, reach], ticks: [-reach, -reach / 2, 0, reach / 2, reach] };
}

function minus(value) {
  return String(value).replace("-", "−");
}

/** 256 points of the sine, as many as there are noisy ones. */
export function sine(points = 256) {
  return evenly(points).map((x) => Math.sin(2 * x));
}

/** n values of x, evenly spaced from -pi to pi. */
function evenly(n) {
  return Array.from({ length: n }, (_, i) => -PI + (2 * PI * i) / (n - 1));
}
