/** Between Gradio and our modules: one is loaded when it is first seen, and draws only while it is seen. */

/**
 * @param {URL} module  @param {HTMLElement} element  @param {object} props
 * @param {Function} watch, trigger  Gradio's
 */
export function mount(module, element, props, watch, trigger) {
  let seen = false;
  let missed = new Set([
    () => import(module).then(({ mount }) => mount(element, props, watchWhileSeen, trigger)),
  ]);
  const watchWhileSeen = (name, react) => watch(name, () => (seen ? react() : missed.add(react)));
  new ResizeObserver(([{ contentRect }]) => {
    seen = contentRect.width > 0;
    if (!seen) return;
    const late = missed;
    missed = new Set();
    for (const react of late) react();
  }).observe(element);
}
