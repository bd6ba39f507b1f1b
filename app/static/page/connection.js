/** Whether anybody answers: what is lost with a connection, a server or a page is said, and so is the way on. */

import { NETWORK, NOTICE, tell, when } from "../data/events.js";
import { own } from "../data/recording.js";

const STORE = "qat-lab.stood";
const PATIENCE = 6000; // milliseconds without news while some are due
const LOOK = 2000;
const GONE = "The server does not answer. What you see is the last that came from it; the settings are in the address, so that a reload later goes on with them.";
const ANEW =
  "The server was started anew and has forgotten your networks. What you see is the last that came; Run trains the same network again, from step 0.";

let expected = 0; // when news were last due, or came
let seen = "";
let isDue = false;

export function watchConnection() {
  const { server } = JSON.parse(document.getElementById("catalogue").textContent);
  window.addEventListener("offline", () => tell(NOTICE, ["connection", GONE]));
  window.addEventListener("online", () => tell(NOTICE, ["connection", ""]));
  document.addEventListener("click", ({ target }) => {
    if (target.closest?.(".run-buttons button, #export, #measure")) expect(true);
  });
  setInterval(async () => {
    const now = [...document.querySelectorAll(".view[data-step]")].map(({ dataset }) => `${dataset.step} ${dataset.running}`).join();
    if (now !== seen) {
      seen = now;
      expect(now.includes("true"));
    } else if (isDue && Date.now() - expected > PATIENCE) {
      expect(now.includes("true"));
      tell(NOTICE, ["connection", await whatIsWrong(server)]);
    }
  }, LOOK);
  remember();
}

/** "" if nothing is. */
export async function whatIsWrong(server, ask = fetch) {
  try {
    const answer = await ask("healthz", { signal: AbortSignal.timeout(PATIENCE) });
    return (await answer.json()).server === server ? "" : ANEW;
  } catch {
    return GONE;
  }
}

function expect(news) {
  isDue = news;
  expected = Date.now();
}

/** A page that is loaded again has a fresh network. */
function remember() {
  const [visit] = performance.getEntriesByType("navigation");
  const stood = sessionStorage.getItem(STORE);
  if (visit?.type === "reload" && stood) {
    tell(NOTICE, ["reload", `Loaded again, the page begins with a fresh network; the one that was here (${stood}) is gone. Run takes it up: steps that this server has recorded are replayed.`]);
  }
  sessionStorage.removeItem(STORE);
  when(NETWORK, (label) => own()?.frames.at(-1).step && sessionStorage.setItem(STORE, label));
}
