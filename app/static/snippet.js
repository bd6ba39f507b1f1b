/** A listing whose code follows the settings. */

import { copyable } from "./copyable.js";
import { follow } from "./follow.js";

export function mount(root, props, watch) {
  const view = root.querySelector(".view");
  view.replaceChildren();
  const show = copyable(view, JSON.parse(props.value).title);
  follow(props, watch, ({ code }) => show(code));
}
