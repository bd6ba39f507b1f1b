/** Chapter "onnxruntime": what onnxruntime answers from the exported file. */

import { FitPlot } from "../../static/charts/fit_plot.js";
import { follow } from "../../static/data/follow.js";
import { spoken } from "../../static/widgets/spoken.js";

export function mount(view, props, watch) {
  const say = spoken(view);
  const plot = new FitPlot(view, {
    title: "What the file answers",
    height: 260,
    fits: ["qat"],
    legend: [["qat", "the file"], ["point", "your x"]],
  });
  const point = plot.line("point");

  follow(props, watch, (frame) => {
    say(frame.words, { patient: false, problem: Boolean(frame.problem) });
    plot.show(() => {
      plot.drawData(frame, { qat: frame.curve });
      point.setAttribute("d", frame.point ? plot.dots([frame.point.x], [frame.point.y]) : "");
    });
    plot.describe(frame.curve ? frame.words : "Noisy points of a sine; no file has been exported yet.");
  });
}
