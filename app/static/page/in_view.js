/** Whoever presses Run sees what it does: a chart of the chapter is on the screen, or comes there. */

const LEAST = 0.6; // of a chart's height

export function keepInView() {
  document.addEventListener("click", ({ target }) => {
    const chapter = target.closest?.(".run-buttons .primary")?.closest(".chapter");
    const charts = [...(chapter?.querySelectorAll("svg.plot-svg, canvas") ?? [])].filter((chart) => chart.clientHeight);
    if (charts.length && !charts.some(isSeen)) charts[0].closest("figure, .view").scrollIntoView({ block: "end" });
  });
}

function isSeen(chart) {
  const { top, bottom, height } = chart.getBoundingClientRect();
  return Math.min(bottom, window.innerHeight) - Math.max(top, 0) >= LEAST * height;
}
