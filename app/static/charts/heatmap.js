/** A matrix of codes as a picture in which one cell is chosen: with a click, or with the arrow keys. */

import { element } from "../widgets/dom.js";

const SIDE = 256; // of the longer side, in CSS pixels
const THICKEST = 40; // a matrix with one row or column is a bar

export class Heatmap {
  /**
   * @param {HTMLElement} parent
   * @param {string} name  of the matrix, for screen readers
   * @param {(row: number, col: number) => void} choose  called when another cell is chosen
   */
  constructor(parent, name, choose) {
    Object.assign(this, { name, choose, rows: 0, cols: 0, row: 0, col: 0 });
    this.box = element("div", "heatmap");
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "application");
    this.box.setAttribute("aria-roledescription", "matrix");
    this.canvas = element("canvas");
    this.canvas.setAttribute("aria-hidden", "true");
    this.cursor = element("div", "cursor");
    this.box.append(this.canvas, this.cursor);
    parent.append(this.box);
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("click", (event) => this.click(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.paint());
    new MutationObserver(() => this.paint()).observe(document.body, { attributeFilter: ["class"] });
  }

  /**
   * @param {{ rows: number, cols: number, codes: Int8Array, reach: number, marks: (i: number) => string }} matrix
   *     reach: the largest magnitude of a code; marks: what is written into a cell, "■" for a dot
   */
  show(matrix) {
    Object.assign(this, matrix);
    const side = Math.floor(SIDE / Math.max(this.rows, this.cols)) * Math.max(this.rows, this.cols) || SIDE;
    this.box.style.width = `${this.cols > 1 ? (this.cols / Math.max(this.rows, this.cols)) * side : THICKEST}px`;
    this.box.style.aspectRatio = `${this.cols > 1 ? this.cols : THICKEST / (side / this.rows)} / ${this.rows > 1 ? this.rows : THICKEST / (side / this.cols)}`;
    this.paint();
  }

  select(row, col, words) {
    Object.assign(this, { row, col });
    Object.assign(this.cursor.style, {
      left: `${(100 * col) / this.cols}%`,
      top: `${(100 * row) / this.rows}%`,
      width: `${100 / this.cols}%`,
      height: `${100 / this.rows}%`,
    });
    this.box.setAttribute("aria-label", `${this.name}, ${this.rows} rows, ${this.cols} columns. ${words} Arrow keys choose another.`);
  }

  key(event) {
    const page = 8;
    const moves = {
      ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
      PageUp: [-page, 0], PageDown: [page, 0], Home: [0, -this.cols], End: [0, this.cols],
    };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.moveTo(this.row + move[0], this.col + move[1]);
  }

  click(event) {
    const { left, top, width, height } = this.box.getBoundingClientRect();
    this.moveTo(Math.floor(((event.clientY - top) / height) * this.rows), Math.floor(((event.clientX - left) / width) * this.cols));
  }

  moveTo(row, col) {
    row = Math.max(0, Math.min(this.rows - 1, row));
    col = Math.max(0, Math.min(this.cols - 1, col));
    if (row !== this.row || col !== this.col) this.choose(row, col);
  }

  paint() {
    if (!this.rows) return;
    const style = getComputedStyle(this.box);
    const [negative, zero, positive, ink] = ["--code-negative", "--code-zero", "--code-positive", "--ink"].map((name) => rgb(style.getPropertyValue(name)));
    const cell = Math.max(4, Math.ceil((2 * SIDE) / Math.max(this.rows, this.cols) / 2) * 2);
    const width = this.cols > 1 ? cell : 2 * THICKEST;
    const height = this.rows > 1 ? cell : 2 * THICKEST;
    this.canvas.width = this.cols * width;
    this.canvas.height = this.rows * height;
    const pen = this.canvas.getContext("2d");
    for (let i = 0; i < this.codes.length; i++) {
      const [x, y] = [(i % this.cols) * width, Math.floor(i / this.cols) * height];
      const share = Math.min(1, Math.abs(this.codes[i]) / this.reach);
      pen.fillStyle = css(mixed(zero, this.codes[i] < 0 ? negative : positive, share));
      pen.fillRect(x, y, width, height);
      const mark = this.marks(i);
      if (!mark) continue;
      pen.fillStyle = css(share > 0.5 ? zero : ink);
      if (mark !== "■") {
        pen.font = `${Math.round(height * 0.6)}px ${style.fontFamily}`;
        pen.textAlign = "center";
        pen.textBaseline = "middle";
        pen.fillText(mark, x + width / 2, y + height / 2);
        continue;
      }
      const dot = Math.max(2, Math.min(width, height) / 3);
      pen.fillRect(x + (width - dot) / 2, y + (height - dot) / 2, dot, dot);
    }
  }
}

function rgb(text) {
  return text.trim().match(/[\da-f]{2}/gi).map((pair) => parseInt(pair, 16));
}

function mixed(from, to, share) {
  return from.map((value, i) => Math.round(value + (to[i] - value) * share));
}

function css(color) {
  return `rgb(${color.join(" ")})`;
}
