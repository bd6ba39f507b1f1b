/** What the parts of the page tell each other: the names of all events of the window, and what comes with each. */

export const SETTINGS = "settings"; // the values of the settings, in their order; Gradio tells it
export const CHAPTER = "chapter"; // another is open: its key
export const CHAPTER_DONE = "chapter-done"; // its key
export const TICKS = "ticks"; // other chapters are ticked than before
export const NETWORK = "network"; // the visitor's own has moved on: its label
export const NOTICE = "notice"; // about what, and a sentence for the head of the page; "" takes it back

export function tell(event, detail) {
  window.dispatchEvent(new CustomEvent(event, { detail }));
}

export function when(event, react) {
  window.addEventListener(event, ({ detail }) => react(detail));
}
