/** The hidden layer's weights on their stairs: the latent weight across, its code upwards, hills for how many. */

import { Plot } from "../../static/charts/plot.js";

export class StairsPlot extends Plot {
  constructor(parent, { title, height }) {
    super(parent, {
      title,
      height,
      x: { domain: [-9.5, 8.5], ticks: [-8, -4, 0, 4, 7], title: "latent weight ÷ scale", format: minus },
      y: { domain: [-9, 9], ticks: [-8, -4, 0, 4, 7], format: minus },
      legend: [["code-stairs", "its code"], ["hills", "how many weights"]],
    });
    this.stairs = this.line("code-stairs");
    this.hills = this.line("hills");
  }

  /** @param {{ quant_min: number, quant_max: number, bins_per_code: number, histogram: number[] }} grid */
  drawGrid({ quant_min, quant_max, bins_per_code, histogram }) {
    const ticks = [quant_min, quant_min / 2, 0, -quant_min / 2, quant_max];
    const from = quant_min - 1.5;
    const room = (quant_max - quant_min) * 0.22; // for the hill on the topmost step
    this.setAxis("x", { domain: [from, quant_max + 1.5], ticks });
    this.setAxis("y", { domain: [quant_min - room / 4, quant_max + room], ticks });
    const clamp = (x) => Math.max(quant_min, Math.min(quant_max, x));
    let path = `M${this.px(from).toFixed(1)} ${this.py(quant_min).toFixed(1)}`;
    for (let code = quant_min; code <= quant_max; code++) {
      path += `V${this.py(code).toFixed(1)}H${this.px(code === quant_max ? code + 1.5 : code + 0.5).toFixed(1)}`;
    }
    this.stairs.setAttribute("d", path);
    const tallest = Math.sqrt(Math.max(...histogram, 1));
    const reach = this.py(0) - this.py(room); // pixels of the tallest hill
    const width = (this.px(1) - this.px(0)) / bins_per_code;
    this.hills.setAttribute("stroke-width", Math.max(1, width * 0.85).toFixed(2));
    this.hills.setAttribute(
      "d",
      histogram
        .map((count, i) => {
          if (!count) return "";
          const at = from + (i + 0.5) / bins_per_code;
          const tall = Math.max(2, (reach * Math.sqrt(count)) / tallest);
          return `M${this.px(at).toFixed(1)} ${this.py(clamp(Math.round(at))).toFixed(1)}v${(-tall).toFixed(1)}`;
        })
        .join(""),
    );
  }
}

function minus(value) {
  return String(value).replace("-", "−");
}
