/** Drawing once a screen refresh, however much arrives. */

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
  const paint = () => draw(JSON.parse(props.value));
  watch("value", oncePerFrame(paint));
  paint();
}
