/** The chart that is drawn upon, with a pointer or with the arrow keys. */

import { MODELS, perModel } from "../../static/charts/models.js";
import { Plot, heightInView } from "../../static/charts/plot.js";
import { setAll } from "../../static/widgets/dom.js";
import { short, shortest } from "../../static/widgets/format.js";

const BRUSH = 5; // columns that an arrow key lifts, falling off to both sides

export const COLUMNS = 129; // of the curve that is drawn

export class Pad {
  constructor(parent, onDraw) {
    this.plot = new Plot(parent, {
      title: "Your points",
      height: heightInView(),
      x: { domain: [-1, 1], ticks: [-1, 0, 1], title: "x", format: shortest },
      y: { domain: [-1.2, 1.2], ticks: [-1, 0, 1], format: shortest },
      legend: [["noisy", "your points"], ...MODELS.map(({ key, name }) => [key, name])],
    });
    this.plot.svg.classList.add("pad");
    this.dots = this.plot.line("noisy");
    this.fits = MODELS.map(({ key }) => ({ key, path: this.plot.line(key) }));
    this.cursor = this.plot.line("cursor");
    this.column = (COLUMNS - 1) / 2;
    this.last = null;
    this.onDraw = onDraw;
    const { svg } = this.plot;
    svg.addEventListener("pointerdown", (event) => this.press(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => (this.last = null));
    svg.addEventListener("keydown", (event) => this.key(event));
    for (const change of ["focus", "blur"]) svg.addEventListener(change, () => this.draw());
  }

  show(points, curves, isEditable) {
    Object.assign(this, { points, curves, isEditable });
    const { svg } = this.plot;
    svg.classList.toggle("editable", isEditable);
    svg.setAttribute("role", isEditable ? "slider" : "img");
    if (isEditable) svg.setAttribute("tabindex", "0");
    else svg.removeAttribute("tabindex");
    const [low, high] = extent(points.map(([x]) => x));
    this.reach = [low, high];
    this.plot.setAxis("x", this.isGrid() ? { domain: [-1, 1], ticks: [-1, 0, 1] } : axis(low, high));
    const [bottom, top] = extent(points.map(([, y]) => y));
    const margin = (top - bottom) / 10 || Math.abs(top) / 10 || 1;
    this.plot.setAxis("y", this.isGrid() ? { domain: [-1.2, 1.2], ticks: [-1, 0, 1] } : axis(bottom, top, margin));
    this.plot.show(() => this.draw());
  }

  describe(points, { curves, error, step, steps }) {
    const { svg } = this.plot;
    const fits = curves.qat ? ` Fits after step ${step} of ${steps}, typical error: ${perModel((key) => short(error[key] ?? 0))}.` : "";
    this.plot.describe(this.isEditable ? `Curve of ${points.length} points to draw over; arrow keys move and lift it.${fits}` : `${points.length} points.${fits}`);
    for (const name of ["valuemin", "valuemax", "valuenow", "valuetext"]) {
      if (!this.isEditable) svg.removeAttribute(`aria-${name}`);
    }
    if (!this.isEditable) return;
    const [x, y] = points[this.column];
    setAll(svg, { "aria-valuemin": -1, "aria-valuemax": 1, "aria-valuenow": y.toFixed(2), "aria-valuetext": `at x = ${shortest(x.toFixed(2))}, y = ${shortest(y.toFixed(2))}` });
  }

  isGrid() {
    return this.points.length === COLUMNS && this.points[0][0] === -1 && this.points.at(-1)[0] === 1;
  }

  draw() {
    const { plot, points } = this;
    if (!points || !plot.width) return;
    this.dots.setAttribute("d", plot.dots(points.map(([x]) => x), points.map(([, y]) => y)));
    const [low, high] = this.reach;
    for (const { key, path } of this.fits) {
      const curve = this.curves[key] ?? [];
      path.setAttribute("d", plot.through(curve.map((_, i) => low + ((high - low) * i) / (curve.length - 1)), curve));
    }
    const [x, y] = points[Math.min(this.column, points.length - 1)];
    const isShown = this.isEditable && document.activeElement === plot.svg;
    this.cursor.setAttribute("d", isShown ? `M${plot.px(x)} ${plot.py(y) - 26}V${plot.py(y) + 26}${plot.dots([x], [y])}` : "");
  }

  press(event) {
    if (!this.isEditable || event.button > 0) return;
    event.preventDefault();
    this.plot.svg.focus({ preventScroll: true });
    this.plot.svg.setPointerCapture(event.pointerId);
    this.last = this.at(event);
    this.paint(this.last);
  }

  move(event) {
    if (!this.last || !this.isEditable) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const step of events.length ? events : [event]) {
      const next = this.at(step);
      this.paint(next);
      this.last = next;
    }
  }

  /** Column and height below the pointer. */
  at({ clientX, clientY }) {
    const box = this.plot.svg.getBoundingClientRect();
    const share = (clientX - box.left - this.plot.px(-1)) / (this.plot.px(1) - this.plot.px(-1));
    const height = (clientY - box.top - this.plot.py(0)) / (this.plot.py(1) - this.plot.py(0));
    return [within(Math.round(share * (COLUMNS - 1)), 0, COLUMNS - 1), within(height, -1, 1)];
  }

  /** The line from where the pointer was to where it is. */
  paint([column, height]) {
    const [from, start] = this.last;
    const points = this.points.slice();
    const [low, high] = extent([from, column]);
    for (let i = low; i <= high; i++) {
      const share = column === from ? 1 : (i - from) / (column - from);
      points[i] = [points[i][0], short4(start + share * (height - start))];
    }
    this.column = column;
    this.onDraw(points);
  }

  key(event) {
    if (!this.isEditable) return;
    const sideways = { ArrowLeft: -2, ArrowRight: 2, PageDown: -16, PageUp: 16, Home: -COLUMNS, End: COLUMNS }[event.key];
    const lift = { ArrowUp: 0.05, ArrowDown: -0.05 }[event.key];
    if (sideways === undefined && lift === undefined) return;
    event.preventDefault();
    if (sideways) this.column = within(this.column + sideways, 0, COLUMNS - 1);
    const points = lift
      ? this.points.map(([x, y], i) => [x, short4(within(y + lift * Math.exp(-(((i - this.column) / BRUSH) ** 2)), -1, 1))])
      : this.points;
    if (lift) this.onDraw(points);
    else {
      this.draw();
      this.describe(this.points, { curves: this.curves, error: {} });
    }
  }
}

/** Round numbers as ticks, two to five of them where there is any width. */
function axis(low, high, margin = 0) {
  const domain = [low - margin, high + margin];
  const rough = (domain[1] - domain[0]) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const first = Math.ceil(domain[0] / step);
  const count = Math.floor(domain[1] / step) - first + 1;
  return { domain, ticks: Array.from({ length: Math.max(0, count) }, (_, i) => (first + i) * step) };
}

export function extent(values) {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

function within(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

export function short4(value) {
  return Math.round(value * 1e4) / 1e4;
}
