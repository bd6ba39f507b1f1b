/** A guess of a curve: drawn with a finger or a mouse, or chosen among descriptions, and scored kindly. */

const POINTS = 128;
const LIKE_NO_CHANGE = 0.1; // a truth this near to the FP32 curve is no change to be seen

export const GUESSES = [
  { name: "It stays as it is", guess: (curve) => [...curve] },
  { name: "It keeps its shape, at half the height", guess: (curve) => curve.map((y) => y / 2) },
  { name: "It breaks into a few straight pieces", guess: pieces },
];

/** Let the pointer draw into a chart. @param {(ys: (number | null)[]) => void} changed  y at 128 places, null where none */
export function drawInto(plot, changed) {
  let ys = [];
  let before = null;
  const at = (event) => {
    const box = plot.svg.getBoundingClientRect();
    const [left, right] = plot.x.domain;
    const [bottom, top] = plot.y.domain;
    const across = (event.clientX - box.left - plot.px(left)) / (plot.px(right) - plot.px(left));
    const up = (event.clientY - box.top - plot.py(bottom)) / (plot.py(top) - plot.py(bottom));
    const i = Math.round(across * (POINTS - 1));
    return { i: Math.max(0, Math.min(POINTS - 1, i)), y: bottom + Math.max(0, Math.min(1, up)) * (top - bottom) };
  };
  const stroke = (event) => {
    const now = at(event);
    const from = before ?? now;
    const steps = Math.max(1, Math.abs(now.i - from.i));
    for (let k = 0; k <= steps; k++) {
      ys[Math.round(from.i + ((now.i - from.i) * k) / steps)] = from.y + ((now.y - from.y) * k) / steps;
    }
    before = now;
    changed(ys);
  };
  plot.svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !plot.svg.classList.contains("drawable")) return;
    event.preventDefault(); // of selecting text
    plot.svg.setPointerCapture(event.pointerId);
    ys = Array(POINTS).fill(null);
    before = null;
    stroke(event);
  });
  plot.svg.addEventListener("pointermove", (event) => {
    if (plot.svg.hasPointerCapture(event.pointerId)) for (const part of parts(event)) stroke(part);
  });
}

/** How far a guess is from the truth, and what to say about it. @returns {string} */
export function score(guess, truth, unchanged) {
  const places = guess.flatMap((y, i) => (y === null || truth[i] === null ? [] : [i]));
  if (!places.length) return "";
  const apart = (ys) => Math.sqrt(places.reduce((sum, i) => sum + (ys[i] - truth[i]) ** 2, 0) / places.length);
  const off = apart(guess);
  const still = apart(unchanged);
  const numbers = `Your line is ${off.toFixed(2)} away from the truth`;
  if (still < LIKE_NO_CHANGE) return `${numbers}. This network hardly changes: try another seed.`;
  const compared = `${numbers}; a curve that stays as it is would be ${still.toFixed(2)} away.`;
  if (off < 0.4 * still) return `${compared} You saw it coming.`;
  if (off < 0.85 * still) return `${compared} You had a good part of it.`;
  if (off < 1.2 * still) return `${compared} Nearly everybody expects it to be gentler.`;
  return `${compared} It is hard to guess: the errors of three layers multiply.`;
}

function pieces(curve) {
  const knots = 5;
  return curve.map((_, i) => {
    const place = (i / (curve.length - 1)) * (knots - 1);
    const k = Math.min(knots - 2, Math.floor(place));
    const y = (j) => curve[Math.round(((j + 0.25) / knots) * (curve.length - 1))] ?? 0;
    return y(k) + (place - k) * (y(k + 1) - y(k));
  });
}

/** A quick hand moves far between two events; browsers keep what lay between. */
function parts(event) {
  const all = event.getCoalescedEvents?.() ?? [];
  return all.length ? all : [event];
}
