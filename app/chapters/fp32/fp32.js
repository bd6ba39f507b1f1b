/** Chapter "fp32": the fit of one network, its loss, and the floor under it. */

import { FitPlot, sine } from "../../static/charts/fit_plot.js";
import { heightInView } from "../../static/charts/plot.js";
import { LossPlot } from "../../static/charts/loss_plot.js";
import { eachFrame, own } from "../../static/data/recording.js";
import { chapterDone } from "../../static/page/done.js";
import { element } from "../../static/widgets/dom.js";
import { grouped, short } from "../../static/widgets/format.js";
import { statusLine } from "../../static/widgets/status.js";
import { numbersTable, thinned } from "../../static/widgets/table.js";

const KEY = "fp32";

export function mount(view) {
  const status = statusLine(view);
  const charts = element("div", "stack");
  view.append(charts);
  const fit = new FitPlot(charts, { title: "The fit", height: heightInView(), fits: [KEY], legend: [[KEY, "FP32"]] });
  const losses = new LossPlot(charts, {
    title: "Loss, log scale",
    height: 240,
    series: [
      [KEY, "on the noisy points", ({ loss }) => loss[KEY]],
      ["sine", "against the clean sine", ({ error }) => error[KEY]],
    ],
    more: [["floor", "what the sine itself scores"]],
  });
  const ring = [losses.line("best"), losses.line("best-hole")];
  const words = element("p", "quiet");
  view.append(words);
  const table = numbersTable(view, "The losses", ["Step", "On the points", "Against the sine"]);

  eachFrame(view, () => {
    const run = own();
    if (!run) return;
    const { frames, noisy, floor } = run;
    const frame = frames.at(-1);
    view.dataset.step = frame.step;
    view.dataset.label = frame.label;
    view.dataset.running = frame.running;
    if (frame.step === frame.steps) chapterDone(KEY);
    status(frame, frame.words[KEY]);
    fit.show(() => fit.drawData({ noisy, clean: sine() }, frame.curves));
    fit.describe(
      `Noisy points of a sine and the fit of the FP32 network after step ${frame.step}. ` +
        `Mean squared error: ${short(frame.loss[KEY])} on the points, ${short(frame.error[KEY])} against the sine.`,
    );
    const lowest = frames.reduce((a, b) => (b.error[KEY] < a.error[KEY] ? b : a));
    losses.show(() => {
      losses.drawRun(frames, frame, floor);
      for (const part of ring) part.setAttribute("d", frame.step ? losses.dots([lowest.step], [lowest.error[KEY]]) : "");
    });
    losses.describe(
      `After step ${frame.step} the loss on the points is ${short(frame.loss[KEY])}, the error against the sine ` +
        `${short(frame.error[KEY])}; the sine itself scores ${short(floor)} on the points.`,
    );
    words.textContent = frame.step
      ? `Nearest to the sine so far: step ${grouped(lowest.step)}, error ${short(lowest.error[KEY])} (the ring).`
      : "The ring will mark where the network was nearest to the sine.";
    table(() => thinned(frames).map(({ step, loss, error }) => [step, short(loss[KEY]), short(error[KEY])]));
  });
}
