/** Drawing once a screen refresh, however much arrives, and nothing from Pause on until the run has ended. */

let isHeld = false;

document.addEventListener("click", ({ target }) => {
  const button = target.closest?.(".run-buttons button");
  if (button) isHeld = button.id.endsWith("-pause");
});

/** Whether the frame is one of a run that was told to pause: on a slow network some are still under way. */
export function comesAfterPause({ running }) {
  if (!running) isHeld = false;
  return isHeld;
}

/** One drawing a screen refresh, however often it is asked for. */
export function oncePerFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}

/** Draw the newest value. @param {{ value: string }} props  @param {(frame: object) => void} draw */
export function follow(props, watch, draw) {
  const paint = () => {
    const frame = JSON.parse(props.value);
    if (!comesAfterPause(frame)) draw(frame);
  };
  watch("value", oncePerFrame(paint));
  paint();
}
