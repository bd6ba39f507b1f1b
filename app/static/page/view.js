/** Between Gradio and our modules: one is loaded when it is first seen, and draws only while it is seen. */

/**
 * @param {URL} module  @param {HTMLElement} element  @param {object} props
 * @param {Function} watch, trigger  Gradio's
 */
export function mount(module, element, props, watch, trigger) {
  let seen = false;
  const watchWhileSeen = (name, react) => watch(name, () => (seen ? react() : missed.add(react)));
  const draw = () =>
    import(module)
      .then((loaded) => loaded.mount(element, props, watchWhileSeen, trigger))
      .catch((error) => say(element, error, draw));
  let missed = new Set([draw]);
  new ResizeObserver(([{ contentRect }]) => {
    seen = contentRect.width > 0;
    if (!seen) return;
    const late = missed;
    missed = new Set();
    for (const react of late) react();
  }).observe(element);
}

/** A sentence in the place of what could not be drawn. */
function say(element, error, draw) {
  const words = document.createElement("p");
  words.className = "problem";
  words.setAttribute("role", "alert");
  words.textContent = `This could not be drawn: ${error.message}. `;
  const again = document.createElement("button");
  again.className = "plain";
  again.type = "button";
  again.textContent = "Try again";
  again.addEventListener("click", draw);
  words.append(again);
  element.querySelector(".view").replaceChildren(words);
}
