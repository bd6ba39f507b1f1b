/** Numbers as the page writes them: a minus sign as long as a plus, thousands apart, no more digits than are read. */

/** Two digits are enough to compare. */
export function short(value) {
  if (value === 0) return "0";
  if (value >= 99.5) return grouped(Math.round(value));
  return value >= 1e-6 ? value.toPrecision(2) : powerOfTen(value);
}

/** How many times `other` the value is: of the two as `short` shows them, so that a reader finds the same. */
export function times(value, other) {
  return short(shown(value) / Math.max(shown(other), 1e-12));
}

function shown(value) {
  return value >= 99.5 ? Math.round(value) : Number(value.toPrecision(2));
}

/** Two digits and a power of ten: 3.0 · 10⁻⁸. */
export function powerOfTen(value) {
  const [digits, power] = value.toExponential(1).split("e");
  return `${minus(digits)} · ${tenTo(Number(power))}`;
}

export function tenTo(power) {
  return `10${String(power).replace(/./g, (sign) => (sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign]))}`;
}

/** Four digits are enough to read; whole numbers stay whole. */
export function readable(value) {
  if (Number.isInteger(value)) return minus(String(value));
  const size = Math.abs(value);
  return minus(size >= 1e-3 && size < 1e5 ? value.toPrecision(4) : value.toExponential(2));
}

export function grouped(count) {
  return count.toLocaleString("en");
}

/** So many digits after the point; what rounds to 0 has no sign. */
export function signed(value, digits) {
  const text = value.toFixed(digits);
  return minus(Number(text) === 0 ? text.replace("-", "") : text);
}

export function percent(share, digits = 3) {
  return `${Number((100 * share).toPrecision(digits))}%`;
}

/** Four digits at most, and no zeros at the end. */
export function shortest(value) {
  return minus(String(Number(Number(value).toPrecision(4))));
}

export function minus(text) {
  return text.replaceAll("-", "−");
}
