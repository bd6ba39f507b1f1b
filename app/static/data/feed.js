/** Nothing to be seen: hands the frames that the server sends to the recording. */

import { NETWORK, tell } from "./events.js";
import { add } from "./recording.js";

export function mount(view, props, watch) {
  const take = () => {
    const frame = JSON.parse(props.value);
    add(frame);
    if (frame.preset === "") tell(NETWORK, frame.label);
  };
  watch("value", take);
  take();
}
