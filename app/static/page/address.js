/** The address: which chapter is open, the settings, and which of them are hidden. Opening a chapter asks no server. */

import { CHAPTER, SETTINGS, tell, when } from "../data/events.js";

const { chapters, defaults, ranges } = JSON.parse(document.getElementById("catalogue").textContent);

/** The front door, then the course. @type {{ key: string, title: string, lead: string, uses: string[] }[]} */
export const CHAPTERS = chapters;
export const NAMES = Object.keys(defaults);

const onlyOpen = document.head.appendChild(document.createElement("style"));
let open = null;
let values = null; // of the settings, once the page has them

/** The open chapter's place in CHAPTERS. */
export function place() {
  return open;
}

/** @param {string} key  @param {Iterable<string>} hidden  settings @returns {URL} of a chapter with the settings of now */
export function link(key, hidden = hiddenNames()) {
  const url = new URL(window.location.href);
  const query = url.searchParams;
  const hide = NAMES.filter((name) => [...hidden].includes(name));
  url.hash = "";
  put(query, "chapter", key);
  put(query, "hide", hide.length ? hide.join(",") : null);
  for (const name of values ? NAMES : []) {
    const isPlain = String(values[name]) === String(defaults[name]) && !hide.includes(name);
    if (isOffered(name, values[name])) put(query, name, isPlain ? null : String(values[name])); // or else the last that was
  }
  url.search = query.toString().replaceAll("%2C", ",");
  return url;
}

/** Show a chapter, and let Back return to the one before. */
export function go(key) {
  if (CHAPTERS[open].key !== key) history.pushState(null, "", link(key));
  show(key);
}

/** The settings that a teacher's link hides. */
export function hiddenNames() {
  const hide = new URLSearchParams(window.location.search).get("hide") ?? "";
  return new Set(hide.split(",").filter((name) => NAMES.includes(name)));
}

/** The settings as they are on the page. */
export function settings() {
  return values ?? defaults;
}

/** Told by Gradio whenever a setting changes. */
when(SETTINGS, (latest) => {
  values = Object.fromEntries(NAMES.map((name, i) => [name, latest[i]]));
  history.replaceState(null, "", link(CHAPTERS[open].key));
});

window.addEventListener("popstate", () => {
  show(wanted());
  history.replaceState(null, "", link(CHAPTERS[open].key)); // the settings of now, not those of then
});

function wanted() {
  const key = new URLSearchParams(window.location.search).get("chapter");
  return CHAPTERS.some((chapter) => chapter.key === key) ? key : CHAPTERS[0].key;
}

function show(key) {
  open = CHAPTERS.findIndex((chapter) => chapter.key === key);
  const { title, uses } = CHAPTERS[open];
  const hidden = hiddenNames();
  onlyOpen.textContent = `.page:not(#page-${key}) { display: none !important; }`;
  document.documentElement.dataset.chapter = key;
  document.documentElement.dataset.controls = uses.filter((name) => !hidden.has(name)).join(" ");
  name(title);
  tell(CHAPTER, key);
}

function name(chapter) {
  const title = `${chapter} · ${document.querySelector("meta[name=tutorial]").content}`;
  if (document.title !== title) document.title = title;
}

function speakEnglish() {
  if (document.documentElement.lang !== "en") document.documentElement.lang = "en";
}

/** What the server would take: a box that is typed in may hold anything for a moment, or nothing. */
function isOffered(name, value) {
  if (!ranges[name]) return value !== null;
  const [low, high, isWhole] = ranges[name];
  return Number.isFinite(value) && low <= value && value <= high && (!isWhole || Number.isInteger(value));
}

function put(query, name, value) {
  if (value === null) query.delete(name);
  else query.set(name, value);
}

document.documentElement.toggleAttribute("data-embed", new URLSearchParams(window.location.search).get("embed") === "1");
show(wanted());
// Gradio writes the language of the browser; ours is the text's.
new MutationObserver(speakEnglish).observe(document.documentElement, { attributes: true, attributeFilter: ["lang"] });
speakEnglish();
// Gradio writes the page's own title when it starts, which may be later.
new MutationObserver(() => name(CHAPTERS[open].title)).observe(document.head, { childList: true, subtree: true });
