/** What a module asks of the server, one question at a time: a late answer could otherwise cover a later one. */

export const PATIENCE = 150; // milliseconds without a further arrow key before the server is asked
const LONGEST_HOLD = 3000; // milliseconds
const LOST = 20_000; // milliseconds after which no answer will come

export class Questions {
  /**
   * @param {(event: string, about: object) => void} send
   * @param {(isWaiting: boolean) => void} changed  an answer is still to come, or the last is there
   */
  constructor(send, changed) {
    Object.assign(this, { send, changed, waiting: [], asked: 0, open: false, held: 0, due: 0, cell: {} });
  }

  /** The network of new settings is on its way: a question that came before it would be about another. */
  hold() {
    clearTimeout(this.held);
    this.held = setTimeout(() => this.release(), LONGEST_HOLD);
    this.next();
  }

  release() {
    clearTimeout(this.held);
    this.held = 0;
    this.next();
  }

  /** Look when no other wish comes for a moment. */
  soon(cell) {
    clearTimeout(this.due);
    this.cell = cell;
    this.due = setTimeout(() => this.ask("select", cell), PATIENCE);
    this.changed(true);
  }

  /** Of several looks that wait, the last is enough; every step counts. */
  ask(event, about) {
    if (this.due) about = { ...this.cell, ...about };
    clearTimeout(this.due);
    this.due = 0;
    if (event === "select" && this.waiting.at(-1)?.event === "select") this.waiting.pop();
    this.waiting.push({ event, about });
    this.next();
  }

  /** Take in an answer. @param {number} number  of its question  @returns {boolean} not if the visitor looks elsewhere by now */
  isWorthDrawing(number) {
    if (number !== this.asked) return false;
    clearTimeout(this.patience);
    this.open = false;
    return !this.due && !this.waiting.some(({ event }) => event === "select");
  }

  next() {
    if (!this.open && !this.held && this.waiting.length) {
      const { event, about } = this.waiting.shift();
      this.open = true;
      this.asked += 1;
      this.patience = setTimeout(() => {
        this.open = false;
        this.next();
      }, LOST);
      this.send(event, { ...about, asked: this.asked });
    }
    this.changed(this.open || this.held > 0 || this.due > 0);
  }
}
