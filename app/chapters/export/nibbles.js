/** A weight as it lies in the file: a map of its codes, and the byte behind the one that is pointed at. */

import { element, svgElement } from "../../static/widgets/dom.js";
import { grouped } from "../../static/widgets/format.js";

const WIDEST = 64;

export class NibbleMap {
  /** @param {HTMLElement} parent  @param {object[]} weights  as the server sends them; the largest is shown first */
  constructor(parent, weights) {
    const largest = weights.reduce((best, weight, i) => (weight.elements > weights[best].elements ? i : best), 0);
    const figure = element("figure", "nibbles-figure");
    const caption = element("figcaption");
    const label = element("label", "", "The codes of ");
    this.select = element("select");
    this.select.append(...weights.map((weight) => element("option", "", weight.name)));
    this.select.selectedIndex = largest;
    label.append(this.select);
    caption.append(label);
    this.about = element("p", "quiet");

    this.map = svgElement("svg", { class: "map", role: "slider", tabindex: 0, "aria-label": "Code", "aria-valuemin": 0 });
    this.cells = svgElement("g", { "aria-hidden": "true" });
    this.cursor = svgElement("rect", { class: "cursor", width: 1, height: 1 });
    this.map.append(this.cells, this.cursor);
    this.byte = element("p", "byte");
    this.words = element("p", "reading");
    figure.append(caption, this.about, this.map, this.byte, this.words);
    parent.append(figure);

    this.select.addEventListener("change", () => this.show(weights[this.select.selectedIndex]));
    this.map.addEventListener("pointermove", (event) => this.point(event));
    this.map.addEventListener("pointerdown", (event) => this.point(event));
    this.map.addEventListener("keydown", (event) => this.press(event));
    this.show(weights[largest]);
  }

  show(weight) {
    this.weight = weight;
    this.bytes = Uint8Array.from(atob(weight.bytes), (c) => c.charCodeAt(0));
    this.values = new Float32Array(Uint8Array.from(atob(weight.values), (c) => c.charCodeAt(0)).buffer);
    this.codes = Array.from(this.values, (_, i) => codeAt(this.bytes, i, weight.bits, !weight.dtype.startsWith("U")));
    const count = this.codes.length;
    this.columns = Math.min(WIDEST, Math.max(16, 8 * Math.ceil(Math.sqrt(count) / 8)), Math.max(count, 1));
    const rows = Math.ceil(count / this.columns);
    this.map.setAttribute("viewBox", `-0.1 -0.1 ${this.columns + 0.2} ${rows + 0.2}`);
    this.map.style.maxWidth = `${this.columns * 16}px`;
    this.map.setAttribute("aria-valuemax", count - 1);
    this.cells.replaceChildren(...this.squares());
    const part = count < weight.elements ? `, the first ${grouped(count)} codes here` : "";
    this.about.textContent =
      `${weight.dtype}, ${weight.shape.join(" × ")}, from byte ${grouped(weight.offset)} of the file${part}. ` +
      "Magenta is below zero, teal above; the fuller, the further.";
    this.move(0);
  }

  /** One path for each code there is. */
  squares() {
    const places = new Map();
    this.codes.forEach((code, i) => places.set(code, [...(places.get(code) ?? []), i]));
    const largest = Math.max(...[...places.keys()].map(Math.abs), 1);
    return [...places].map(([code, indices]) =>
      svgElement("path", {
        class: code === 0 ? "zero" : code < 0 ? "negative" : "positive",
        "fill-opacity": code === 0 ? 1 : 0.15 + (0.85 * Math.abs(code)) / largest,
        d: indices.map((i) => `M${i % this.columns} ${Math.floor(i / this.columns)}h.9v.9h-.9z`).join(""),
      }),
    );
  }

  point(event) {
    const frame = this.map.getBoundingClientRect();
    const rows = Math.ceil(this.codes.length / this.columns);
    const column = Math.floor(((event.clientX - frame.left) / frame.width) * this.columns);
    const row = Math.floor(((event.clientY - frame.top) / frame.height) * rows);
    if (column >= 0 && column < this.columns) this.move(row * this.columns + column);
  }

  press(event) {
    const last = this.codes.length - 1;
    const page = 8 * this.columns;
    const steps = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this.columns,
      ArrowDown: this.columns,
      PageUp: -page,
      PageDown: page,
      Home: -last,
      End: last,
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.move(Math.max(0, Math.min(last, this.index + steps[event.key])));
  }

  move(index) {
    if (index < 0 || index >= this.codes.length) return;
    this.index = index;
    this.cursor.setAttribute("x", (index % this.columns) - 0.05);
    this.cursor.setAttribute("y", Math.floor(index / this.columns) - 0.05);
    const { weight } = this;
    const wide = Math.max(weight.bits / 8, 1);
    const together = Math.max(8 / weight.bits, 1);
    const at = Math.floor((index * weight.bits) / 8);
    const place = index % together;
    const digits = Array.from(this.bytes.slice(at, at + wide), (byte) => byte.toString(16).padStart(2, "0"));
    this.byte.replaceChildren(
      element("span", "quiet", `byte ${grouped(weight.offset + at)}`),
      element("span", "hex", `0x${digits.join("")}`),
      ...(wide > 1 ? [] : halves(this.bytes[at], weight.bits, place)),
    );
    const which = { 2: `bits ${2 * place} and ${2 * place + 1}`, 4: place ? "high nibble" : "low nibble", 8: "byte" }[weight.bits] ?? "word";
    const words = `${where(weight.shape, index)}: the ${which} is code ${minus(this.codes[index])} and stands for ${minus(short(this.values[index]))}.`;
    this.words.textContent = words;
    this.map.setAttribute("aria-valuenow", index);
    this.map.setAttribute("aria-valuetext", `${words} Byte 0x${digits.join("")}.`);
  }
}

/** The bits of a byte as they are written, highest first; those of the code at `place` stand out. */
function halves(byte, bits, place) {
  const written = byte.toString(2).padStart(8, "0");
  return Array.from({ length: 8 / bits }, (_, i) =>
    element("span", i === 8 / bits - 1 - place ? "bits current" : "bits", written.slice(i * bits, (i + 1) * bits)),
  );
}

/** The code at a place: lowest bits first, two's complement where signed. */
export function codeAt(bytes, index, bits, signed) {
  if (bits === 32) return new DataView(bytes.buffer).getInt32(4 * index, true);
  const together = 8 / bits;
  const code = (bytes[Math.floor(index / together)] >> (bits * (index % together))) & (2 ** bits - 1);
  return signed && code >= 2 ** (bits - 1) ? code - 2 ** bits : code;
}

/** [row, column, ...] of a place in row-major order. */
function where(shape, index) {
  const places = [];
  for (const size of [...shape].reverse()) {
    places.unshift(index % size);
    index = Math.floor(index / size);
  }
  return `Weight [${places.join(", ")}]`;
}

function short(value) {
  return String(Number(value.toPrecision(6)));
}

function minus(value) {
  return String(value).replace("-", "−");
}
