/** Links to take along: to this very page, and one for a class, in which chosen settings are fixed and out of sight. */

import { SETTINGS, when } from "../data/events.js";
import { button, element } from "../widgets/dom.js";
import { CHAPTERS, NAMES, hiddenNames, link, place, settings } from "./address.js";
import { NAMED, valueInWords } from "./in_words.js";

/** @returns {HTMLElement} */
export function linkTools() {
  const tools = element("div", "link-tools");
  const said = element("span", "quiet");
  said.setAttribute("role", "status");
  const copy = button("Copy link", async () => {
    said.textContent = (await toClipboard(here())) ? "Copied." : "Copy it from the address bar.";
    setTimeout(() => (said.textContent = ""), 4000);
  }, "plain");
  const dialog = classDialog();
  const share = button("Link for a class", () => dialog.open(), "plain");
  share.setAttribute("aria-haspopup", "dialog");
  tools.append(copy, share, said, dialog.node);
  return tools;
}

function classDialog() {
  const node = element("dialog", "class-link");
  node.setAttribute("aria-labelledby", "class-link-title");
  const title = element("h2", "", "A link for a class");
  title.id = "class-link-title";
  const about = element("p", "", "It opens this chapter. The settings that you tick keep their values of now and are not shown.");

  const fields = element("fieldset");
  fields.append(element("legend", "", "Fix and hide"));
  const offered = NAMES.filter((name) => CHAPTERS.some(({ uses }) => uses.includes(name)));
  const boxes = offered.map((name) => {
    const label = element("label");
    const box = element("input");
    const value = element("span", "quiet");
    box.type = "checkbox";
    box.addEventListener("change", () => update());
    label.append(box, NAMED[name], value);
    fields.append(label);
    return { name, box, value };
  });

  const text = element("input", "address");
  text.type = "text";
  text.readOnly = true;
  text.setAttribute("aria-label", "The link");
  const said = element("span", "quiet");
  said.setAttribute("role", "status");
  const line = element("div", "buttons");
  const copy = button("Copy", async () => {
    said.textContent = (await toClipboard(text.value)) ? "Copied." : "Press Ctrl+C to copy it.";
    if (said.textContent !== "Copied.") text.select();
  }, "plain");
  line.append(copy, button("Close", () => node.close(), "plain"), said);
  node.append(title, about, fields, text, line);

  const update = () => {
    for (const { name, value } of boxes) value.textContent = valueInWords(settings()[name]);
    const chosen = boxes.filter(({ box }) => box.checked).map(({ name }) => name);
    text.value = link(CHAPTERS[place()].key, chosen).href;
    said.textContent = "";
  };
  const open = () => {
    const hidden = hiddenNames();
    for (const { name, box } of boxes) box.checked = hidden.has(name);
    update();
    node.showModal();
  };
  when(SETTINGS, update); // which the page may learn after the dialog was opened
  return { node, open };
}

function here() {
  return link(CHAPTERS[place()].key).href;
}

/** Whether it worked: browsers forbid it on pages that came without TLS. */
async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
