/** Nothing to be seen: hands the frames that the server sends to the recording. */

import { add } from "./recording.js";

export function mount(root, props, watch) {
  const take = () => {
    const frame = JSON.parse(props.value);
    add(frame);
    if (frame.preset === "") window.dispatchEvent(new CustomEvent("network", { detail: frame.label }));
    if (frame.step === frame.steps && !frame.running) {
      window.dispatchEvent(new CustomEvent("trained", { detail: frame.preset }));
    }
  };
  watch("value", take);
  take();
}
