/** The layer's codes, in which a weight is picked. */

import { Heatmap } from "../../static/charts/heatmap.js";
import { button, element } from "../../static/widgets/dom.js";
import { grouped, readable } from "../../static/widgets/format.js";

const PICKS = [
  ["gradient", "Largest gradient"],
  ["flip", "About to flip"],
  ["clamped", "Clamped hardest"],
];

export function matrix(parent, ask, look) {
  const side = element("section", "matrix");
  const layers = element("div", "which-layer segments");
  layers.setAttribute("role", "group");
  layers.setAttribute("aria-label", "Layer");
  side.append(element("h3", "", "The weight"), layers);
  let frame = null;
  const heatmap = new Heatmap(side, "Codes of the layer", (row, col) => {
    heatmap.select(row, col, words(frame, row, col));
    caption.textContent = words(frame, row, col);
    look({ row, col });
  });
  const caption = element("p", "caption");
  caption.setAttribute("aria-live", "polite");
  const picks = element("div", "picks");
  const pickers = PICKS.map(([key, name]) => [key, button(name, () => ask({ row: frame.picks[key][0], col: frame.picks[key][1] }))]);
  picks.append(...pickers.map(([, node]) => node));
  const scale = element("p", "code-scale quiet");
  const counts = element("p", "quiet");
  side.append(caption, scale, picks, counts);
  parent.append(side);

  return (latest) => {
    frame = latest;
    const codes = codesOf(frame);
    const bits = atob(frame.flips);
    const reach = frame.numbers.quant_max;
    heatmap.show({ rows: frame.rows, cols: frame.cols, codes, reach, marks: (i) => ((bits.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1 ? "■" : "") });
    heatmap.select(frame.row, frame.col, words(frame, frame.row, frame.col));
    caption.textContent = words(frame, frame.row, frame.col);
    scale.replaceChildren(`code ${readable(frame.numbers.quant_min)}`, element("span", "ramp"), `${frame.numbers.quant_max}`);
    counts.textContent =
      `■ ${grouped(frame.flipped)} of ${grouped(frame.rows * frame.cols)} codes flip in this step. ` +
      (frame.clamped ? `${grouped(frame.clamped)} are clamped.` : "None is clamped: the scale covers them all.");
    for (const [key, node] of pickers) node.disabled = !frame.picks[key];
    layers.replaceChildren(
      ...Object.entries(frame.layers).map(([key, [inputs, outputs]]) => {
        const node = button(`${inputs} → ${outputs}`, () => ask({ layer: key, row: null, col: null }));
        node.setAttribute("aria-pressed", String(key === frame.layer));
        return node;
      }),
    );
  };
}

function words(frame, row, col) {
  return `Row ${row}, column ${col}: code ${readable(codesOf(frame)[row * frame.cols + col])}.`;
}

/** The codes of the layer: two to a byte, the low nibble first, where they have at most four bits. */
function codesOf({ codes, bits, rows, cols }) {
  const bytes = Uint8Array.from(atob(codes), (c) => c.charCodeAt(0));
  if (bits > 4) return Int8Array.from(bytes);
  return Int8Array.from({ length: rows * cols }, (_, i) => (bytes[i >> 1] << (i & 1 ? 24 : 28)) >> 28);
}
