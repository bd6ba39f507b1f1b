/** Draw the newest value once a screen refresh, however many arrive. */

/**
 * @param {{ value: string }} props  @param {Function} watch  @param {(frame: object) => void} draw
 */
export function follow(props, watch, draw) {
  let waiting = false;
  const paint = () => {
    waiting = false;
    draw(JSON.parse(props.value));
  };
  watch("value", () => {
    if (!waiting) requestAnimationFrame(paint);
    waiting = true;
  });
  paint();
}
