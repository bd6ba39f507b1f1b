/** Chapter "ste": the error against the rate at which a scale learns, measured by `python -m app.lab.rates`. */

import { Plot } from "../../static/charts/plot.js";
import { kept } from "../../static/data/kept.js";
import { element } from "../../static/widgets/dom.js";
import { signed } from "../../static/widgets/format.js";
import { numbersTable } from "../../static/widgets/table.js";

const KINDS = { 4: "rounding", 2: "clipping" };

export async function mount(view) {
  const { tasks, seeds, rates, chosen, errors } = await kept("rates.json", "the measured rates");
  const powers = rates.map(Math.log2);
  const widths = Object.keys(KINDS);
  const highest = Math.ceil(Math.max(...widths.flatMap((bits) => errors[bits].map(([mean]) => mean))));
  const plot = new Plot(view, {
    title: "Error of QAT with learned scales, as a multiple of FP32's",
    height: 260,
    x: { domain: [powers[0], powers.at(-1)], ticks: powers, format: (v) => named(2 ** v), title: "rate of the scale, in rates of a weight" },
    y: { domain: [0, highest], ticks: Array.from({ length: highest + 1 }, (_, i) => i) },
    legend: widths.map((bits) => [KINDS[bits], `${bits} bits`]),
  });
  const here = plot.line("stem");
  const lines = widths.map((bits) => [bits, plot.line(KINDS[bits]), plot.line(`${KINDS[bits]} spot`)]);
  plot.show(() => {
    here.setAttribute("d", plot.through([Math.log2(chosen), Math.log2(chosen)], [0, highest]));
    for (const [bits, line, dots] of lines) {
      const means = errors[bits].map(([mean]) => mean);
      line.setAttribute("d", plot.through(powers, means));
      dots.setAttribute("d", plot.dots(powers, means));
    }
  });
  const words = widths.map((bits) => inWords(bits, rates, errors[bits], chosen)).join(" ");
  plot.describe(words);
  view.append(element("p", "words", words));
  const about = `Geometric mean over ${tasks.length} tasks (${tasks.join(", ")}), ${seeds} seeds each; one scale a channel.`;
  view.append(element("p", "quiet", about));
  numbersTable(view, "Every rate", ["Rate", ...widths.map((bits) => `${bits} bits (95% over seeds)`)])(() =>
    rates.map((rate, i) => [
      named(rate),
      ...widths.map((bits) => {
        const [mean, low, high] = errors[bits][i].map((value) => signed(value, 2));
        return `${mean} (${low} to ${high})`;
      }),
    ]),
  );
}

/** The rate in use, beside the slowest and the quickest. */
function inWords(bits, rates, errors, chosen) {
  const at = (rate) => `${signed(errors[rates.indexOf(rate)][0], 2)} × FP32's at rate ${named(rate)}`;
  return `${bits} bits: ${[rates[0], chosen, rates.at(-1)].map(at).join(", ")}.`;
}

function named(rate) {
  return rate < 1 ? `1/${1 / rate}` : String(rate);
}
