/** A small SVG chart: axes that follow the width of the page, lines that are clipped to the plot. */

import { element, setAll, svgElement } from "../widgets/dom.js";
import { grouped, tenTo } from "../widgets/format.js";
import { swatch } from "./models.js";

const MARGIN = { top: 8, right: 20, bottom: 40, left: 48 };
const OVERHANG = 6; // lines may leave the plot sideways by as much as a dot needs
let plots = 0;

/**
 * @typedef {{ domain: [number, number], ticks: number[], format?: (v: number) => string, log?: boolean,
 *             title?: string }} Axis
 */

export class Plot {
  /**
   * @param {HTMLElement} parent
   * @param {{ title: string, height: number, x: Axis, y: Axis, legend: [string, string][], margin?: object }} options
   *     legend: kind of line and its name
   */
  constructor(parent, { title, height, x, y, legend, margin = {} }) {
    Object.assign(this, { height, x, y, margin: { ...MARGIN, ...margin }, width: 0, draw: () => {} });
    const figure = element("figure", "plot");
    const caption = element("figcaption");
    caption.append(element("span", "plot-title", title), legendList(legend));

    this.svg = svgElement("svg", { class: "plot-svg", height, role: "img" });
    const clip = `plot-${plots++}`;
    this.clip = svgElement("rect");
    const clipPath = svgElement("clipPath", { id: clip });
    clipPath.append(this.clip);
    this.axes = svgElement("g", { class: "axes", "aria-hidden": "true" });
    this.lines = svgElement("g", { "clip-path": `url(#${clip})` });
    this.svg.append(clipPath, this.axes, this.lines);

    figure.append(caption, this.svg);
    parent.append(figure);
    this.observer = new ResizeObserver(([entry]) => this.resize(entry.contentRect.width));
    this.observer.observe(figure);
  }

  /** An empty line; the class decides how it looks. @returns {SVGPathElement} */
  line(kind) {
    const path = svgElement("path", { class: `line ${kind}` });
    this.lines.append(path);
    return path;
  }

  /** What a screen reader says. */
  describe(words) {
    this.svg.setAttribute("aria-label", words);
  }

  /** Draw now and again whenever the width changes. @param {() => void} draw */
  show(draw) {
    this.draw = draw;
    if (this.width) draw();
  }

  setAxis(name, axis) {
    if (String(this[name].domain) === String(axis.domain)) return;
    Object.assign(this[name], axis);
    this.drawAxes();
  }

  px(value) {
    return scale(this.x, value, this.margin.left, this.width - this.margin.right);
  }

  py(value) {
    return scale(this.y, value, this.height - this.margin.bottom, this.margin.top);
  }

  /** SVG path through points; null is a gap. */
  through(xs, ys) {
    let gap = true;
    return ys
      .map((y, i) => {
        if (y === null) {
          gap = true;
          return "";
        }
        const command = gap ? "M" : "L";
        gap = false;
        return `${command}${this.px(xs[i]).toFixed(1)} ${this.py(y).toFixed(1)}`;
      })
      .join("");
  }

  /** SVG path of dots: lines of no length, which a round cap makes visible. */
  dots(xs, ys) {
    return ys.map((y, i) => `M${this.px(xs[i]).toFixed(1)} ${this.py(y).toFixed(1)}h0`).join("");
  }

  resize(width) {
    if (width === this.width || width === 0) return;
    this.width = width;
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.drawAxes();
    this.draw();
  }

  drawAxes() {
    if (!this.width) return;
    const left = this.margin.left;
    const right = this.width - this.margin.right;
    const bottom = this.height - this.margin.bottom;
    const width = Math.max(right - left, 0) + 2 * OVERHANG;
    setAll(this.clip, { x: left - OVERHANG, y: this.margin.top, width, height: bottom - this.margin.top });
    this.axes.replaceChildren(
      ...this.y.ticks.map((tick) => svgElement("path", { class: "grid", d: `M${left} ${this.py(tick)}H${right}` })),
      ...this.y.ticks.map((tick) => label(left - 8, this.py(tick) + 4, "end", format(this.y, tick))),
      ...this.x.ticks.map((tick) => label(this.px(tick), bottom + 18, "middle", format(this.x, tick))),
      label((left + right) / 2, this.height - 4, "middle", this.x.title),
    );
  }
}

/** Of a chapter's first chart: with the controls above it, it fits into the window. */
export function heightInView() {
  return Math.round(Math.min(300, Math.max(190, window.innerHeight / 3)));
}

/** A logarithmic axis of whole decades that hold all values, never fewer than those given. */
export function decades(values, low, high) {
  const powers = values.filter((v) => v > 0).map(Math.log10);
  const from = Math.min(low, Math.floor(Math.min(...powers)));
  const to = Math.max(high, Math.ceil(Math.max(...powers)));
  const ticks = Array.from({ length: to - from + 1 }, (_, i) => 10 ** (from + i));
  return { domain: [10 ** from, 10 ** to], ticks, log: true, format: decade };
}

function decade(value) {
  return value >= 1e-3 && value <= 1000 ? grouped(value) : tenTo(Math.round(Math.log10(value)));
}

function scale(axis, value, from, to) {
  const at = axis.log ? (v) => Math.log10(Math.max(v, 1e-30)) : (v) => v;
  const [low, high] = axis.domain;
  const share = (at(value) - at(low)) / (at(high) - at(low));
  return from + Math.max(-5, Math.min(6, share)) * (to - from);
}

function format(axis, tick) {
  return axis.format ? axis.format(tick) : String(tick);
}

function label(x, y, anchor, text) {
  const node = svgElement("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

export function legendList(entries, mark = swatch) {
  const list = element("ul", "legend");
  for (const [kind, name] of entries) {
    const item = element("li");
    item.append(mark(kind), name);
    list.append(item);
  }
  return list;
}
