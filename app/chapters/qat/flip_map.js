/** The hidden layer's matrix: a cell is the darker, the more often its code flipped back and forth lately. */

import { element } from "../../static/widgets/dom.js";

const DARKEST = 0.2; // flips back a step

export class FlipMap {
  constructor(parent, title) {
    const figure = element("figure", "plot flip-map");
    const caption = element("figcaption");
    const scale = element("span", "map-scale");
    const ramp = element("span", "ramp");
    ramp.setAttribute("aria-hidden", "true");
    scale.append("never", ramp, "every 5th step or more");
    caption.append(element("span", "plot-title", title), scale);
    this.canvas = element("canvas");
    this.canvas.setAttribute("role", "img");
    figure.append(caption, this.canvas);
    parent.append(figure);
    this.last = null;
  }

  /** @param {{ rows: number, columns: number, cells: string }} map */
  draw(map) {
    const theme = document.body.className;
    if (map === this.last && theme === this.theme) return;
    this.last = map;
    this.theme = theme;
    const [r, g, b] = getComputedStyle(this.canvas).color.match(/[\d.]+/g).map(Number);
    const { canvas } = this;
    const { rows, columns } = map;
    canvas.width = columns;
    canvas.height = rows;
    const image = new ImageData(columns, rows);
    frequencies(map).forEach((f, i) => image.data.set([r, g, b, 255 * Math.sqrt(Math.min(1, f / DARKEST))], 4 * i));
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  describe(words) {
    this.canvas.setAttribute("aria-label", words);
  }
}

/** How often each cell flips back, per step. @returns {number[]} */
export function frequencies({ cells }) {
  return Array.from(atob(cells), (c) => c.charCodeAt(0) / 255);
}

/** How many cells lie in each class of frequency. @returns {[string, number][]} */
export function classes(map) {
  const all = frequencies(map);
  const count = (low, high) => all.filter((f) => f > low && f <= high).length;
  return [
    ["never", count(-1, 0)],
    ["up to every 50th step", count(0, 0.02)],
    ["up to every 20th step", count(0.02, 0.05)],
    ["up to every 5th step", count(0.05, 0.2)],
    ["more often", count(0.2, 1)],
  ];
}
