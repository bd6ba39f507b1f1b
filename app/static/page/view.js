/** Between Gradio and our modules: one is loaded when it is first seen, and draws only while it is seen. */

import { button, element } from "../widgets/dom.js";

/**
 * @param {URL} module  @param {HTMLElement} root  @param {object} props
 * @param {Function} watch, trigger  Gradio's
 */
export function mount(module, root, props, watch, trigger) {
  const view = root.querySelector(".view");
  let seen = false;
  const watchWhileSeen = (name, react) => watch(name, () => (seen ? react() : missed.add(react)));
  const draw = () =>
    import(module)
      .then((loaded) => {
        view.replaceChildren();
        return loaded.mount(view, props, watchWhileSeen, trigger);
      })
      .catch((error) => say(view, error, draw));
  let missed = new Set([draw]);
  new ResizeObserver(([{ contentRect }]) => {
    seen = contentRect.width > 0;
    if (!seen) return;
    const late = missed;
    missed = new Set();
    for (const react of late) react();
  }).observe(root);
}

/** A sentence in the place of what could not be drawn. */
function say(view, error, draw) {
  const words = element("p", "problem", `This could not be drawn: ${error.message}. `);
  words.setAttribute("role", "alert");
  words.append(button("Try again", draw, "plain"));
  view.replaceChildren(words);
}
