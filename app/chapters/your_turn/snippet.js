/** A listing whose code follows the settings. */

import { follow } from "../../static/data/follow.js";
import { copyable } from "../../static/widgets/copyable.js";

export function mount(view, props, watch) {
  const show = copyable(view, JSON.parse(props.value).title);
  follow(props, watch, ({ code }) => show(code));
}
