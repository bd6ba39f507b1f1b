/** SHA-256, in plain arithmetic: browsers lend theirs to encrypted pages alone, and a page may be served on a local network. */

const FRACTION = 2 ** 32;
const [STARTS, ROUNDS] = constants();

/** @param {(Uint8Array | string)[]} parts  one after another  @returns {string} 64 hexadecimal digits */
export function sha256(...parts) {
  const state = Uint32Array.from(STARTS);
  const words = new Uint32Array(64);
  const block = new Uint8Array(64);
  let filled = 0;
  let length = 0;
  const take = (bytes) => {
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(64 - filled, bytes.length - at);
      block.set(bytes.subarray(at, at + count), filled);
      filled += count;
      at += count;
      if (filled < 64) return;
      mix(state, words, block);
      filled = 0;
    }
  };
  for (const part of parts) {
    const bytes = typeof part === "string" ? new TextEncoder().encode(part) : part;
    length += bytes.length;
    take(bytes);
  }
  const end = new Uint8Array(((filled < 56 ? 56 : 120) - filled) + 8);
  end[0] = 0x80;
  new DataView(end.buffer).setBigUint64(end.length - 8, 8n * BigInt(length));
  take(end);
  return Array.from(state, (word) => word.toString(16).padStart(8, "0")).join("");
}

function mix(state, words, block) {
  const view = new DataView(block.buffer);
  for (let i = 0; i < 16; i++) words[i] = view.getUint32(4 * i);
  for (let i = 16; i < 64; i++) {
    const [early, late] = [words[i - 15], words[i - 2]];
    const s0 = turned(early, 7) ^ turned(early, 18) ^ (early >>> 3);
    const s1 = turned(late, 17) ^ turned(late, 19) ^ (late >>> 10);
    words[i] = words[i - 16] + s0 + words[i - 7] + s1;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const one = (h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + words[i]) | 0;
    const two = ((turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i] += value));
}

function turned(word, by) {
  return (word >>> by) | (word << (32 - by));
}

/** Fractions of the square roots of 8 primes, and of the cube roots of 64. */
function constants() {
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (x) => Math.floor((x % 1) * FRACTION);
  return [primes.slice(0, 8).map((p) => fraction(Math.sqrt(p))), Uint32Array.from(primes, (p) => fraction(Math.cbrt(p)))];
}
