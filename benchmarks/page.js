// Watches the front door and one chapter that trains, from the first byte on. Milliseconds since the navigation began.
window.seen = { moving: null, ready: null, pressed: null, ended: null, draws: [], frames: [] };
(() => {
  const { seen } = window;
  let ended = 0; // when the main thread was done with the last frame
  const channel = new MessageChannel();
  channel.port1.onmessage = () => seen.frames.push(performance.now() - ended);
  const watch = () => {
    ended = performance.now();
    const stage = document.querySelector(".stage[data-step]"); // of the front door
    if (stage && Number(stage.dataset.step) > 0) seen.moving ??= performance.now();
    const view = document.querySelector(".view[data-step]");
    if (view && document.querySelector("button[id$='-run']")) {
      seen.ready ??= performance.now();
      const { step, running } = view.dataset;
      const last = seen.draws.at(-1);
      if (last?.step !== step || last?.running !== running) seen.draws.push({ step, running, at: performance.now() });
    }
    channel.port2.postMessage(null);
    requestAnimationFrame(watch);
  };
  requestAnimationFrame(watch);
  window.addEventListener("click", () => (seen.pressed = performance.now()), { capture: true });
})();
