/** The pictures of the step: the stairs with one weight on them, and three curves over the training points. */

import { Plot } from "../../static/charts/plot.js";
import { multiple, nice, tick } from "../../static/charts/ticks.js";
import { svgElement } from "../../static/widgets/dom.js";
import { readable } from "../../static/widgets/format.js";

const HEIGHT = 300;
const MARGIN = { left: 68 }; // for labels such as −1.5e−5
const REACH = 2.3; // stairs shown on either side
const X = { domain: [-Math.PI, Math.PI], ticks: [-Math.PI, -Math.PI / 2, 0, Math.PI / 2, Math.PI] };
const X_NAMES = ["−π", "−π/2", "0", "π/2", "π"];

/** One picture at a time in the same place. */
export class Pictures {
  constructor(parent) {
    this.all = {
      stairs: new Stairs(parent),
      neuron: new Curves(parent, "This neuron over the training points", [["without", "without this weight"], ["qat", "with it"], ["point", "our point"]]),
      fit: new Curves(parent, "Prediction and data", [["noisy", "noisy points"], ["qat", "QAT network"], ["point", "our point"]]),
      parts: new Curves(parent, "What each point says: ∂L/∂y · x", [["gradient", "its part"], ["point", "our point"]]),
    };
  }

  show(stage, frame, values) {
    for (const [name, picture] of Object.entries(this.all)) picture.plot.svg.parentNode.hidden = name !== stage.picture;
    const { x, y, rest, prediction, target, parts } = frame.curves;
    const n = frame.numbers;
    const picture = this.all[stage.picture];
    if (stage.picture === "stairs") picture.show(stage.key, frame, values);
    if (stage.picture === "neuron") picture.show(x, { without: rest, qat: y }, {}, [n.point, n.y], `Output ${frame.row} with and without this weight; at x = ${readable(n.point)} it is ${readable(n.y)}.`);
    if (stage.picture === "fit") picture.show(x, { qat: prediction }, { noisy: target }, [n.point, n.prediction, n.target], `The QAT network's prediction and the data; at x = ${readable(n.point)}, ${readable(n.prediction)} against ${readable(n.target)}.`);
    if (stage.picture === "parts") picture.show(x, { gradient: parts }, {}, [n.point, n.grad_share], `The parts of the gradient over the training points; they add up to ${readable(n.grad_quantized)}.`);
  }
}

class Curves {
  constructor(parent, title, legend) {
    this.plot = new Plot(parent, {
      title,
      height: HEIGHT,
      margin: MARGIN,
      x: { ...X, format: (v) => X_NAMES[X.ticks.indexOf(v)], title: "x" },
      y: { domain: [-1, 1], ticks: [], format: tick },
      legend,
    });
    this.plot.svg.parentNode.hidden = true;
    this.zero = this.plot.line("zero");
    this.gap = this.plot.line("gap");
    this.lines = Object.fromEntries(legend.map(([kind]) => [kind, this.plot.line(kind)]));
  }

  /** @param {number[]} at  x of the point, and one or two values of y there */
  show(x, lines, dots, at, words) {
    const ys = [...Object.values(lines), ...Object.values(dots), at.slice(1)].flat();
    this.plot.setAxis("y", nice(Math.min(0, ...ys), Math.max(0, ...ys)));
    this.plot.describe(words);
    this.plot.show(() => {
      const { plot } = this;
      this.zero.setAttribute("d", plot.through([-Math.PI, Math.PI], [0, 0]));
      for (const [kind, values] of Object.entries(lines)) this.lines[kind].setAttribute("d", plot.through(x, values));
      for (const [kind, values] of Object.entries(dots)) this.lines[kind].setAttribute("d", plot.dots(x, values));
      this.lines.point.setAttribute("d", plot.dots(at.slice(1).map(() => at[0]), at.slice(1)));
      this.gap.setAttribute("d", at.length > 2 ? plot.through([at[0], at[0]], at.slice(1)) : "");
    });
  }
}

/** The staircase round the weight's code; what a stage is about is drawn in full strength. */
class Stairs {
  constructor(parent) {
    this.plot = new Plot(parent, {
      title: "The stairs, and this weight on them",
      height: HEIGHT,
      margin: MARGIN,
      x: { domain: [-2, 2], ticks: [] },
      y: { domain: [-2, 2], ticks: [] },
      legend: [["stair", "round, clamp"], ["identity", "straight line"], ["gradient", "gradient"]],
    });
    for (const kind of ["beyond", "edges", "identity", "stair", "error", "way", "gradient", "tangent", "slope", "width", "move"]) this[kind] = this.plot.line(kind);
    this.spots = Object.fromEntries(["foot", "top", "side", "moved"].map((kind) => [kind, this.spot(kind)]));
    this.labels = Object.fromEntries(["first", "second"].map((kind) => [kind, this.label(kind)]));
  }

  spot(kind) {
    const circle = svgElement("circle", { class: `spot ${kind}`, r: 6 });
    this.plot.svg.append(circle);
    return circle;
  }

  label(kind) {
    const text = svgElement("text", { class: `remark ${kind}` });
    this.plot.svg.append(text);
    return text;
  }

  show(stage, frame, values) {
    const { plot } = this;
    const inStairs = !["latent", "scale"].includes(stage);
    const { scaled, code, scaled_after: after, s } = values;
    const span = [Math.min(code - REACH, scaled - 0.5), Math.max(code + REACH, scaled + 0.5)];
    const x = { domain: span, ticks: few(whole(span)), format: inStairs ? tick : (k) => multiple(k * s, s), title: inStairs ? "w / s" : "w" };
    const up = ["dequantize", "layer"].includes(stage);
    const rise = [code - REACH, code + REACH];
    const y = { domain: rise, ticks: whole(rise).filter((k) => k >= values.quant_min && k <= values.quant_max), format: up ? (k) => multiple(k * s, s) : tick };
    Object.assign(plot.x, x);
    Object.assign(plot.y, y);
    plot.drawAxes();
    plot.describe(`A staircase of codes; w / s is ${readable(scaled)}, its code ${code}. After the step w / s is ${readable(after)}, the code ${values.code_after}.`);
    plot.svg.dataset.stage = stage;
    plot.svg.classList.toggle("blocked", !frame.passes);
    plot.show(() => this.draw(stage, frame, values, span, rise));
  }

  draw(stage, frame, values, [from, to], [low, high]) {
    const { plot } = this;
    const { scaled, code, rounded, scaled_after: after, code_after: codeAfter, quant_min: min, quant_max: max } = values;
    const px = (v) => plot.px(v).toFixed(1);
    const py = (v) => plot.py(v).toFixed(1);
    const clamped = (k) => Math.max(min, Math.min(max, k));
    const set = (name, d) => this[name].setAttribute("d", d);

    const ks = whole([from - 1, to + 1]);
    const xs = ks.flatMap((k) => [k - 0.5, k + 0.5]);
    set("stair", plot.through(xs, ks.flatMap((k) => [clamped(k), clamped(k)])));
    set("edges", whole([from - 0.5, to - 0.5]).map((k) => k + 0.5).filter((edge) => edge > min && edge < max).map((edge) => `M${px(edge)} ${py(low)}V${py(high)}`).join(""));
    set("identity", plot.through([from, to], [from, to]));
    set("beyond", [[from, min - 0.5], [max + 0.5, to]].filter(([a, b]) => a < b).map(([a, b]) => `M${px(a)} ${py(low)}H${px(b)}V${py(high)}H${px(a)}Z`).join(""));

    const shown = (...stages) => stages.includes(stage);
    const climbs = shown("round", "clamp", "dequantize", "ste", "scale_gradient");
    const level = shown("round") ? rounded : code;
    const above = Math.min(level, high);
    set("way", `M${px(scaled)} ${py(low)}` + (climbs ? `V${py(above)}` : "") + (shown("dequantize", "clamp") ? `M${px(scaled)} ${py(code)}H${px(from)}` : ""));
    set("error", shown("round", "scale_gradient") ? `M${px(scaled)} ${py(Math.min(scaled, high))}V${py(above)}` : "");
    set("width", shown("scale") ? `M${px(code - 0.5)} ${py(code - 0.25)}H${px(code + 0.5)}m0 -5v10M${px(code - 0.5)} ${py(code - 0.25)}m0 -5v10` : "");

    const passes = frame.passes ? `V${py(low)}m-6 -11l6 11l6 -11` : "m0 -12v24";
    set("gradient", shown("ste") ? `M${px(from)} ${py(code)}H${px(scaled)}${passes}` : pulls(stage, values, plot, low));
    set("tangent", shown("ste") ? `M${px(scaled - 0.5)} ${py(code)}H${px(scaled + 0.5)}` : "");
    set("slope", shown("ste") && frame.passes ? `M${px(scaled - 0.7)} ${py(code - 0.7)}L${px(scaled + 0.7)} ${py(code + 0.7)}` : "");
    set("move", shown("update", "flip") ? moves(values, plot, low, high, shown("flip")) : "");

    place(this.spots.foot, plot.px(scaled), plot.py(low), true);
    place(this.spots.top, plot.px(scaled), plot.py(above), climbs);
    place(this.spots.side, plot.px(from), plot.py(code), shown("dequantize", "clamp"));
    place(this.spots.moved, plot.px(after), plot.py(shown("flip") ? codeAfter : low), shown("update", "flip"));
    this.remark(stage, frame, values, low);
  }

  /** Two words where the eye is. */
  remark(stage, frame, values, low) {
    const { plot } = this;
    const { scaled, code, scaled_after: after, code_after: codeAfter } = values;
    const say = (which, text, x, y, anchor = "start") => {
      const node = this.labels[which];
      node.textContent = text;
      node.setAttribute("text-anchor", anchor);
      node.setAttribute("x", x);
      node.setAttribute("y", y);
    };
    const right = plot.px(scaled) < plot.width * 0.66;
    const [dx, anchor] = right ? [12, "start"] : [-12, "end"];
    const foot = [plot.px(scaled) + dx, plot.py(low) - 12];
    say("second", "", 0, 0);
    if (stage === "latent") say("first", `w = ${readable(values.w)}`, ...foot, anchor);
    else if (stage === "scale") say("first", `s = ${readable(values.s)}`, plot.px(code), plot.py(code - 0.25) + 20, "middle");
    else if (stage === "ste") {
      say("first", "slope 0", plot.px(scaled + 0.5), plot.py(code) + 18, "end");
      if (frame.passes) say("second", "slope 1", plot.px(scaled + 0.7), plot.py(code + 0.7) - 8, "end");
    } else if (stage === "averages") {
      say("first", "−∂L/∂w, today's push", plot.px(plot.x.domain[0]) + 8, plot.py(low + 1.25) - 10);
      say("second", "−m̂, the push that Adam remembers", plot.px(plot.x.domain[0]) + 8, plot.py(low + 0.6) - 10);
    } else if (stage === "update") say("first", `w / s = ${readable(after)}`, plot.px(after) + dx, plot.py(low) - 28, anchor);
    else if (stage === "flip") say("first", `code ${readable(codeAfter)}`, plot.px(after) + dx, plot.py(codeAfter) - 12, anchor);
    else if (stage === "scale_gradient") say("first", `∂ŵ/∂s = ${readable(values.slope)}`, plot.px(scaled) + dx, plot.py(Math.max(low + 0.5, Math.min(low + 2 * REACH, (scaled + code) / 2))) + 4, anchor);
    else if (stage === "divide") say("first", `w / s = ${readable(scaled)}`, ...foot, anchor);
    else say("first", `code ${readable(stage === "round" ? values.rounded : code)}`, plot.px(scaled) + dx, plot.py(stage === "round" ? values.rounded : code) - 12, anchor);
  }
}

/** Two arrows: where today's gradient pushes the weight, and where Adam's average does. */
function pulls(stage, values, plot, low) {
  if (stage !== "averages") return "";
  const most = Math.max(Math.abs(values.grad), Math.abs(values.m_hat)) || 1;
  return arrow(plot, values.scaled, values.scaled - (1.5 * values.grad) / most, low + 1.25) + arrow(plot, values.scaled, values.scaled - (1.5 * values.m_hat) / most, low + 0.6);
}

function moves(values, plot, low, high, risen) {
  const { scaled, scaled_after: after, code_after: codeAfter } = values;
  const slide = arrow(plot, scaled, after, low + 0.12);
  return risen ? `${slide}M${plot.px(after).toFixed(1)} ${plot.py(low).toFixed(1)}V${plot.py(codeAfter).toFixed(1)}` : slide;
}

/** Horizontal; without a head where it is too short for one. */
function arrow(plot, from, to, level) {
  const [a, b, y] = [plot.px(from), plot.px(to), plot.py(level)];
  const head = Math.abs(b - a) < 4 ? "" : `m${-Math.sign(b - a) * 8} -5l${Math.sign(b - a) * 8} 5l${-Math.sign(b - a) * 8} 5`;
  return `M${a.toFixed(1)} ${y.toFixed(1)}H${b.toFixed(1)}${head}`;
}

function place(spot, x, y, visible) {
  spot.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
  spot.classList.toggle("absent", !visible);
}

function whole([low, high]) {
  const ks = [];
  for (let k = Math.ceil(low); k <= high; k++) ks.push(k);
  return ks;
}

/** As many of them as have room for their labels. */
function few(ks) {
  const apart = Math.ceil(ks.length / 5);
  return ks.filter((_, i) => i % apart === 0);
}
