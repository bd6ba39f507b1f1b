/** The stages of a step, in order: what each one computes, in a formula, in words and in a picture. */

import { readable } from "../../static/widgets/format.js";

/**
 * @typedef {object} Stage
 * @property {string} key
 * @property {"forward" | "backward" | "update"} pass
 * @property {string} chip  a few letters for the loop
 * @property {string} value  the number that the stage ends with
 * @property {"stairs" | "neuron" | "fit" | "parts"} picture
 * @property {string} title
 * @property {string[]} formula  lines; {name} is a number of the frame
 * @property {string} words  likewise
 */

// Where a formula or words depend on the frame, a function says how; where there is no picture, it is the stairs.
const STAGES = {
  forward: [
    {
      key: "latent", chip: "w", value: "w",
      title: "The latent weight",
      formula: "w = {w}",
      words: "This is what the optimizer keeps: a float32 number. The network itself never multiplies with it.",
    },
    {
      key: "scale", chip: "s", value: "s",
      title: "The scale",
      formula: (f) =>
        ({
          minmax: ["s = max |w| / {quant_max} = {w_max} / {quant_max} = {s}"],
          mse: ["s = {s}"],
          learned: ["s = 2^(log₂ s) = 2^{log2_s} = {s}"],
        })[f.rule],
      words: (f) =>
        ({
          minmax: `The width of one stair. The largest weight of ${sharing(f)} gets the code {quant_max} or −{quant_max}; measured anew in every step.`,
          mse: `The width of one stair. Of 80 fractions of max |w| / {quant_max}, the one whose rounded weights lie closest to the latent ones.`,
          learned: `The width of one stair. How far it has moved from where it began is a parameter like any other, shared by ${sharing(f)}: it will be updated, too.`,
        })[f.rule],
    },
    {
      key: "divide", chip: "w / s", value: "scaled",
      title: "Divide by the scale",
      formula: "w / s = {w} / {s} = {scaled}",
      words: "The same weight, measured in stairs. A true division: multiplying by 1 / s would move one code in a thousand.",
    },
    {
      key: "round", chip: "round", value: "rounded",
      title: "Round",
      formula: "round({scaled}) = {rounded}",
      words: "To the nearest whole number, and from exactly halfway to the even one. This rounds away {rounding_error} of a stair.",
    },
    {
      key: "clamp", chip: "clamp", value: "code",
      title: "Clamp",
      formula: "clamp({rounded}, {quant_min}, {quant_max}) = {code}",
      words: (f) =>
        f.numbers.rounded !== f.numbers.code
          ? "Beyond the last code, and cut off. Remember this on the way back."
          : f.rule === "minmax"
            ? "Nothing happens: a min-max scale is so large that no weight lies beyond the last code. The source leaves the clamp out."
            : "Inside of the range: nothing happens to this one.",
    },
    {
      key: "dequantize", chip: "× s", value: "quantized",
      title: "Multiply by the scale",
      formula: "ŵ = {code} × {s} = {quantized}",
      words: "A float again, but only one of {levels} that are possible. With this the network multiplies.",
    },
    {
      key: "layer", chip: "layer", value: "y", picture: "neuron",
      title: "The layer's output",
      formula: "y = ŵ · x + rest = {quantized} × {x} + {rest} = {y}",
      words: (f) =>
        f.numbers.x === 0
          ? "The neuron that this weight listens to is silent at all {points} training points. What the weight is does not matter now."
          : f.numbers.grad_share === 0
            ? `Output ${f.row} at the training point x = {point}. No neuron after it listens now, at any of the {points} points, so the loss does not depend on it.`
            : `Output ${f.row} at the training point x = {point}, where this weight matters most for the loss. The other inputs and the bias add {rest}.`,
    },
    {
      key: "loss", chip: "loss", value: "loss", picture: "fit",
      title: "The network's output, and the loss",
      formula: "L = mean (ŷ − t)² = {loss}",
      words: "Through the layers that are left. At our point the network predicts ŷ = {prediction}, the noisy data has t = {target}. The loss is the mean over all {points} points.",
    },
  ],
  backward: [
    {
      key: "gradient", chip: "∂L/∂ŵ", value: "grad_quantized", picture: "parts",
      title: "The gradient at the quantized weight",
      formula: "∂L/∂ŵ = Σ ∂L/∂y · x = {grad_y} × {x} + {grad_others} = {grad_quantized}",
      words: (f) =>
        f.numbers.grad_quantized === 0
          ? "Ordinary backpropagation, and a true zero: no point would notice if ŵ moved."
          : `Ordinary backpropagation: what our point says, and the sum of what the others say. The loss would fall if ŵ ${f.numbers.grad_quantized > 0 ? "shrank" : "grew"}. But ŵ cannot move: it is the answer of a staircase.`,
    },
    {
      key: "ste", chip: "STE", value: "grad",
      title: "The straight-through estimator",
      formula: (f) => [`∂L/∂w := ∂L/∂ŵ × ${f.passes ? 1 : 0} = {grad}`, "with the true slope: ∂L/∂ŵ × 0 = 0"],
      words: (f) =>
        f.passes
          ? "A stair is flat: its true slope is 0, and this weight would never learn. The estimator takes the slope of the straight line that the stairs follow: 1. The gradient passes as if round() were not there."
          : "The code was clamped. Out here the straight line leaves the stairs behind, so the estimator takes the slope 0: the gradient is blocked, and only a larger scale can bring this weight back.",
    },
    {
      key: "scale_gradient", chip: "∂L/∂s", value: "grad_s",
      title: "The gradient of the scale",
      formula: ["∂L/∂s = {scale_factor} × Σ ∂L/∂ŵ · ∂ŵ/∂s = {grad_s}", "this weight: {grad_quantized} × {slope} = {scale_share}"],
      words: (f) =>
        f.passes
          ? "The same estimator gives ∂ŵ/∂s = code − w / s, the rounding error. Summed over the {scale_elements} weights that share the scale, and brought to the size of a weight's gradient."
          : "Where the code is clamped, ∂ŵ/∂s is the code itself: the last stair moves with the scale. Summed over the {scale_elements} weights that share it, and brought to the size of a weight's gradient.",
    },
  ],
  update: [
    {
      key: "averages", chip: "Adam’s m", value: "m",
      title: "Adam's averages",
      formula: ["m = 0.9 × {m_before} + 0.1 × {grad} = {m}", "v = 0.999 × {u_before} + 0.001 × {grad}² = {u}"],
      words: "Moving averages of the gradient and of its square. Both began at 0; divided by 1 − 0.9^t and 1 − 0.999^t at step t = {t}, they are m̂ = {m_hat} and v̂ = {u_hat}.",
    },
    {
      key: "update", chip: "new w", value: "w_after",
      title: "The latent weight moves",
      formula: "w ← w − η · m̂ / (√v̂ + ε) = {w} + {change} = {w_after}",
      words: (f) =>
        f.rule === "learned"
          ? "With the learning rate η = {lr}, a move of {moved} stairs. The scale moves the same way, and with the size of the weights: log₂ s from {log2_s} to {log2_s_after}."
          : "With the learning rate η = {lr}, which decays to 0 along a cosine, a move of {moved} stairs.",
    },
    {
      key: "flip", chip: "flip?", value: "code_after",
      title: "Did the code flip?",
      formula: "round({w_after} / {s_after}) = round({scaled_after}) → {code_after}",
      words: flipped,
    },
  ],
};

/** The stages of this frame; where scales are measured they have no gradient. @returns {Stage[]} */
export function stagesOf(frame) {
  const of = (text) => (typeof text === "function" ? text(frame) : text);
  return Object.entries(STAGES).flatMap(([pass, stages]) =>
    stages
      .filter(({ key }) => key !== "scale_gradient" || frame.rule === "learned")
      .map((stage) => ({ picture: "stairs", ...stage, pass, formula: [of(stage.formula)].flat(), words: of(stage.words) })),
  );
}

/** All numbers that the texts name: those of the frame, and what follows from them. */
export function valuesOf(frame) {
  const n = frame.numbers;
  return {
    ...n,
    rounding_error: Math.abs(n.rounded - n.scaled),
    levels: n.quant_max - n.quant_min + 1,
    moved: Math.abs(n.scaled_after - n.scaled),
    to_edge: toEdge(n),
  };
}

/** How far the moved weight is from the nearest edge of its stair, in stairs; beyond the last one there is one edge. */
export function toEdge(n) {
  const code = n.code_after;
  const edges = [code - 0.5, code + 0.5].filter((edge) => edge > n.quant_min && edge < n.quant_max);
  return Math.min(...edges.map((edge) => Math.abs(n.scaled_after - edge)));
}

function flipped(f) {
  const n = f.numbers;
  if (n.code === n.code_after) {
    return "The code stays {code}: for the network this weight has not moved at all. The nearest edge is {to_edge} stairs away.";
  }
  const alone = Math.max(n.quant_min, Math.min(n.quant_max, Math.round(n.w_after / n.s)));
  const why = alone === n.code ? " Not because the weight moved, but because the scale did: the stairs slid under it." : "";
  return `It flips from {code} to {code_after}. Only now does the network change.${why}`;
}

function sharing(f) {
  return { per_tensor: "the whole layer", per_channel: `row ${f.row}`, per_group: "its group" }[f.granularity];
}

/** Where a number comes from. @returns {string} */
export function originOf(name, f) {
  const n = f.numbers;
  const of = { per_tensor: "of the layer", per_channel: `of row ${f.row}`, per_group: "of the group" }[f.granularity];
  const origins = {
    w: `Latent weight in row ${f.row}, column ${f.col}, after ${f.step} steps.`,
    w_max: `Largest magnitude ${of}: the weight in row ${n.w_max_row}, column ${n.w_max_col}.`,
    quant_min: `Smallest code of ${f.bits} signed bits.`,
    quant_max: `Largest code of ${f.bits} signed bits.`,
    s: `Scale ${of}.`,
    log2_s: `The scale's logarithm ${of}: where it began, the size of the weights, and what was learned.`,
    log2_s_after: "The same after this step; Adam moves what is learned by its own averages.",
    scaled: "Latent weight divided by the scale, in float32.",
    rounded: "The nearest whole number, before any clamp.",
    rounding_error: "Distance from w / s to its code before the clamp.",
    code: "The integer that an exported file would hold.",
    levels: `${f.bits} bits make as many codes.`,
    quantized: "Code times scale: the tensor that the layer was given.",
    x: `Input ${f.col} of the layer at the training point ${readable(n.point)}.`,
    point: "One of the training points: the one where ∂L/∂y · x is largest.",
    points: "The whole batch: every step sees all points.",
    rest: "Output minus ŵ · x: all other weights of the row, and the bias.",
    y: `Output ${f.row} of the layer, as the forward pass computed it.`,
    loss: "Mean squared error of the QAT network in this step.",
    prediction: "Output of the network at our point.",
    target: "What was measured there: the sine with noise.",
    grad_y: "Gradient of the loss at the layer's output, at our point; from autograd.",
    grad_others: "The gradient minus our point's part.",
    grad_quantized: "From autograd, at the quantized weight.",
    grad: "What autograd left in weight.grad.",
    scale_factor: `1 / √(${n.scale_elements} × ${n.quant_max}): Esser et al. 2020, section 2.2.`,
    scale_elements: "Weights that share this scale.",
    slope: f.passes ? "Code minus w / s." : "The code of the limit.",
    scale_share: "This weight's part of the sum.",
    grad_s: "From autograd, at the scale.",
    m_before: "Adam's average before this step.",
    m: "exp_avg in Adam's state after this step.",
    u_before: "Adam's average of squares before this step.",
    u: "exp_avg_sq in Adam's state after this step.",
    t: "How many gradients Adam has seen.",
    m_hat: "m divided by 1 − 0.9^t.",
    u_hat: "v divided by 1 − 0.999^t.",
    lr: `Learning rate in step ${f.step + 1} of ${f.steps}.`,
    change: "−η · m̂ / (√v̂ + ε), with ε = 1e-8.",
    moved: "From w / s before to w / s after, scale included.",
    w_after: "The latent weight after optimizer.step().",
    s_after: "The scale that the next forward pass will use.",
    scaled_after: "New latent weight divided by the new scale.",
    code_after: "The code that the next forward pass will use.",
    to_edge: "Distance from the new w / s to the nearest edge between two codes.",
  };
  return origins[name];
}
