/** A crushed network in training: which one, its error, and what it reads in digits that it never saw. */

import { Plot, decades } from "../../static/charts/plot.js";
import { choice } from "../../static/widgets/controls.js";
import { element, svgElement } from "../../static/widgets/dom.js";
import { grouped, short } from "../../static/widgets/format.js";
import { numbersTable } from "../../static/widgets/table.js";

const HEIGHT = 260;

export function whatToHeal(parent, choose) {
  const options = [["worst", "the most fragile layer"], ["mix", "the mix of the budget"]];
  const show = choice(parent, { label: "Heal trains", options, value: "worst", set: (heal) => choose({ heal }) });
  return (frame, { heal }) => show(heal);
}

export function healingChart(parent) {
  const box = element("div");
  parent.append(box);
  const plot = new Plot(box, {
    title: "Healing, log scale",
    height: HEIGHT,
    x: { domain: [0, 1], ticks: [], title: "optimizer step" },
    y: decades([], -3, 1),
    legend: [
      ["fp32", "FP32"],
      ["ptq start", "crushed"],
      ["qat", "trained while rounded"],
    ],
  });
  const everyNumber = numbersTable(box, "Healing", ["Step", "Error"]);
  const [float, line, start, head] = ["fp32", "qat", "head ptq", "head qat"].map((kind) => plot.line(kind));
  return (frame) => {
    const { healing, baseline } = frame;
    const steps = healing?.steps ?? 1;
    everyNumber(() => (healing?.history ?? []).map(([step, error]) => [grouped(step), short(error)]));
    plot.setAxis("x", { domain: [0, steps], ticks: healing ? [0, steps] : [], format: grouped });
    plot.setAxis("y", decades([...(healing?.history.map(([, m]) => m) ?? []), baseline].filter((m) => m !== null), -3, 0));
    plot.show(() => {
      const at = healing?.history.map(([step]) => step) ?? [];
      const metric = healing?.history.map(([, m]) => m) ?? [];
      float.setAttribute("d", baseline === null ? "" : plot.through([0, steps], [baseline, baseline]));
      line.setAttribute("d", plot.through(at, metric));
      start.setAttribute("d", plot.dots(at.slice(0, 1), metric.slice(0, 1)));
      head.setAttribute("d", at.length > 1 ? plot.dots(at.slice(-1), metric.slice(-1)) : "");
    });
    plot.describe(healing ? healed(frame) : "Empty until Heal is pressed.");
  };
}

function healed({ healing, baseline, metric }) {
  const what = healing.layer ? `layer ${healing.layer} at ${healing.bits[0]} bits` : `the mix of ${healing.bits.join(", ")} bits`;
  const [, crushed] = healing.history[0];
  return `${metric} with ${what}: ${short(crushed)} crushed, ${short(healing.history.at(-1)[1])} at step ${grouped(healing.step)}; ${short(baseline)} in FP32.`;
}

/** Images that were never trained on, and what the network that heals takes them for. */
export function unseenDigits(parent) {
  const figure = element("figure", "unseen");
  const title = element("figcaption");
  const row = element("div", "images");
  row.setAttribute("role", "img");
  figure.append(title, row);
  parent.append(figure);
  let images = [];
  return ({ digits, healing }) => {
    figure.hidden = !digits.length;
    if (digits.length !== images.length) {
      images = digits.map(({ pixels }) => image(pixels));
      row.replaceChildren(...images.map(({ node }) => node));
    }
    const answers = healing?.answers ?? [];
    const right = answers.filter((answer, i) => answer === digits[i].digit).length;
    const known = answers.length ? `${right} of ${digits.length} read right at step ${grouped(healing.step)}` : "not read yet: press Heal";
    title.textContent = `Images never trained on, ${known}`;
    row.setAttribute("aria-label", `${digits.length} handwritten digits, ${known}.`);
    images.forEach(({ node, words }, i) => {
      const isRight = answers[i] === digits[i].digit;
      node.className = answers.length ? (isRight ? "right" : "wrong") : "";
      words.textContent = answers.length ? `${isRight ? "✓" : "✗"} ${answers[i]}` : "?";
    });
  };
}

function image(pixels) {
  const node = element("span");
  const svg = svgElement("svg", { viewBox: "0 0 8 8", width: 32, height: 32, "aria-hidden": "true" });
  [...pixels].forEach((letter, i) => {
    const ink = (letter.charCodeAt(0) - 97) / 16;
    if (ink) svg.append(svgElement("rect", { x: i % 8, y: Math.floor(i / 8), width: 1.02, height: 1.02, opacity: ink }));
  });
  const words = element("span", "read");
  node.append(svg, words);
  return { node, words };
}
