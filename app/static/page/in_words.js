/** The settings in the words of the page, wherever they are spoken of. */

export const NAMED = {
  bits: "Bits per weight",
  granularity: "One scale",
  scale: "Scale from",
  noise: "Noise of the data",
  seed: "Seed",
  width: "Width of the network",
  learning_rate: "Learning rate",
  device: "Trains on",
};
const CALLED = { per_tensor: "per tensor", per_channel: "per channel", minmax: "min-max", mse: "MSE" };
const SHORT = {
  bits: (value) => `${value} bits`,
  granularity: (value) => value,
  scale: (value) => value,
  noise: (value) => `noise ${value}`,
  seed: (value) => `seed ${value}`,
  width: (value) => `width ${value}`,
  learning_rate: (value) => `learning rate ${value}`,
  device: (value) => `on ${value}`,
};

/** A value as its control shows it. */
export function valueInWords(value) {
  return value === null ? "empty" : CALLED[value] ?? String(value);
}

/** Setting and value where there is little room. */
export function inWords(name, value) {
  return SHORT[name](valueInWords(value));
}
