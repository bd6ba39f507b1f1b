/** Chapter "onnxruntime": the verdict, the four optimization levels, and the receipt. */

import { NETWORK, when } from "../../static/data/events.js";
import { follow } from "../../static/data/follow.js";
import { link } from "../../static/page/address.js";
import { chapterLink } from "../../static/page/chapter_link.js";
import { chapterDone } from "../../static/page/done.js";
import { element } from "../../static/widgets/dom.js";
import { powerOfTen } from "../../static/widgets/format.js";
import { spoken } from "../../static/widgets/spoken.js";
import { headCell, headed } from "../../static/widgets/table.js";

const MARKS = { exact: "✓", rounding: "✓", broken: "✗" };
const LEVELS = {
  disable_all: "as it is written",
  basic: "constants folded",
  extended: "operators fused",
  all: "all of it, the default",
};

export function mount(view, props, watch) {
  let exported = null;
  let onPage = null;
  const moved = element("p", "quiet");

  const compare = () => {
    moved.textContent = exported && onPage && exported !== onPage ? `Since then the page has moved on to ${onPage}.` : "";
  };
  when(NETWORK, (label) => {
    onPage = label;
    compare();
  });

  const say = spoken(view);
  const body = element("div");
  const there = element("a", "", "Open the chapter Export");
  there.href = link("export");
  chapterLink(there, () => "export");
  view.append(moved, body);

  follow(props, watch, (frame) => {
    say(frame.words, { patient: false, problem: Boolean(frame.problem) });
    if (frame.problem) return;
    exported = frame.label ?? null;
    compare();
    body.replaceChildren(...(frame.levels ? [verdict(frame), table(frame), receipt(frame.receipt)] : [there]));
    if (frame.checked) chapterDone("onnxruntime");
  });
}

function verdict(frame) {
  const box = element("div", `outcome ${frame.outcome}`);
  box.append(element("strong", "", `${MARKS[frame.outcome]} ${frame.verdict}`));
  if (frame.evidence) box.append(element("p", "quiet", frame.evidence));
  return box;
}

function table(frame) {
  const columns = ["Optimization level", "Furthest apart", "ulps", "Off", "Verdict"];
  const { table, body } = headed(columns, { caption: "onnxruntime against PyTorch" });
  for (const level of frame.levels) {
    const row = body.insertRow();
    const name = headCell("", "row");
    name.append(element("span", "level", level.level), element("span", "about", LEVELS[level.level]));
    const exact = level.max_abs_diff === 0;
    const ok = level.code_mismatches === 0 || frame.outcome === "rounding";
    row.append(
      name,
      element("td", "", exact ? "0" : powerOfTen(level.max_abs_diff)),
      element("td", "", exact ? "0" : level.max_ulps.toPrecision(2)),
      element("td", "", `${level.code_mismatches} of ${level.outputs}`),
      element("td", ok ? "verdict ok" : "verdict problem", exact ? "✓ exact" : ok ? "✓ rounding" : "✗ broken"),
    );
  }
  return table;
}

function receipt(entries) {
  const details = element("details", "receipt");
  const list = element("dl");
  for (const [name, text] of entries) list.append(element("dt", "", name), element("dd", "", text));
  details.append(element("summary", "", "The receipt inside the file"), list);
  return details;
}
