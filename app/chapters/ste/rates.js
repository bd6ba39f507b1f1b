/** Chapter "ste": the error against where a scale begins and how fast it learns, measured by `python -m app.lab.rates`. */

import { decades, Plot } from "../../static/charts/plot.js";
import { kept } from "../../static/data/kept.js";
import { element } from "../../static/widgets/dom.js";
import { short } from "../../static/widgets/format.js";
import { numbersTable } from "../../static/widgets/table.js";

const KINDS = ["clipping", "ste-ramp", "rounding"]; // of the lines, slow to quick

export async function mount(view) {
  const { tasks, seeds, bits, starts, rates, chosen, errors } = await kept("rates.json", "the measured rates");
  const means = errors.map((ofRate) => ofRate.map(([mean]) => mean));
  const plot = new Plot(view, {
    title: `Error of QAT with ${bits} bits, as a multiple of FP32's`,
    height: 260,
    x: { domain: [starts[0], starts.at(-1)], ticks: starts, format: factor, title: "the scale begins at, times where it should" },
    y: decades(means.flat(), 0, 1),
    legend: rates.map((rate, i) => [KINDS[i], `rate ${factor(Math.log2(rate))}${rate === chosen ? ", in use" : ""}`]),
  });
  const lines = KINDS.map((kind) => plot.line(kind));
  plot.show(() => lines.forEach((line, i) => line.setAttribute("d", plot.through(starts, means[i]))));
  const at = (start) => rates.map((rate, i) => `${short(means[i][starts.indexOf(start)])} at rate ${factor(Math.log2(rate))}`).join(", ");
  const words =
    `A scale that begins where it should: ${at(0)}. One that begins at ${factor(starts[0])} of that: ${at(starts[0])}. ` +
    `One that begins at ${factor(starts.at(-1))} times that: ${at(starts.at(-1))}.`;
  plot.describe(words);
  view.append(element("p", "words", words));
  const about = `Geometric mean over ${tasks.length} tasks (${tasks.join(", ")}), ${seeds} seeds each; one scale a channel.`;
  view.append(element("p", "quiet", about));
  const columns = ["Begins at", ...rates.map((rate) => `Rate ${factor(Math.log2(rate))} (95% over seeds)`)];
  numbersTable(view, "Every start", columns)(() =>
    starts.map((start, i) => [
      factor(start),
      ...errors.map((ofRate) => {
        const [mean, low, high] = ofRate[i].map(short);
        return `${mean} (${low} to ${high})`;
      }),
    ]),
  );
}

function factor(power) {
  return power < 0 ? `1/${2 ** -power}` : String(2 ** power);
}
