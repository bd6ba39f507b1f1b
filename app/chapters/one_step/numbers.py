"""The numbers of the coming step: of a layer as a whole, and of one weight's way through it."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.lab.data import Sine
from app.lab.fit import Experiment
from app.lab.trace import StepTrace, Update, trace_step, traceable
from app.runs.progress import Progress
from app.runs.queue import exclusive

CURVE_POINTS = 64  # of the 256: enough for a line 400 pixels wide


@dataclass(frozen=True)
class Choice:
    """The weight that the visitor looks at; row and col None is the one with the largest gradient."""

    layer: str = "2"
    row: int | None = None
    col: int | None = None


def contents(progress: Progress, choice: Choice) -> dict[str, Any]:
    """What `one_step.js` draws: the layer as a whole, and every number of one weight.

    Raises:
        ValueError: there is no such weight.
    """
    snapshot = progress.snapshot
    with exclusive():
        experiment = Experiment.restore(snapshot)
        layers = traceable(experiment.models["qat"])
        shapes = {name: [layer.in_features, layer.out_features] for name, layer in layers.items()}
        trace = trace_step(experiment, choice.layer)
    picks = {name: cell_of(at, trace) for name, at in picks_of(trace).items()}
    row, col = (choice.row, choice.col) if choice.row is not None and choice.col is not None else picks["gradient"]
    rows, cols = trace.codes.shape
    if not (0 <= row < rows and 0 <= col < cols):
        raise ValueError(f"row={row}, col={col}; layer {choice.layer!r} has {rows} rows and {cols} columns")
    sine = Sine.sample(progress.settings.noise, progress.settings.seed)
    return {
        "problem": "",
        "matrix": f"{hash(progress.settings):x} {trace.step} {choice.layer}",
        "step": trace.step,
        "steps": progress.record.steps,
        "bits": trace.spec.bits,
        "granularity": trace.spec.granularity,
        "rule": trace.spec.scale,
        "layers": shapes,
        "layer": choice.layer,
        "rows": rows,
        "cols": cols,
        "row": row,
        "col": col,
        "codes": base64_of(packed(trace.codes.flatten().cpu().numpy().astype(np.int8), trace.spec.bits)),
        "flips": base64_of(np.packbits(trace.flips.cpu().numpy())),
        "flipped": int(trace.flips.sum()),
        "clamped": int(trace.clamped.sum()),
        "picks": picks,
        "numbers": {name: exact(value) for name, value in numbers(trace, row, col, sine).items()},
        "passes": bool(trace.passes[row, col]),
        "curves": curves(trace, row, col, sine),
    }


def picks_of(trace: StepTrace) -> dict[str, int | None]:
    """Weights worth a look, as flat indices: the largest gradient, the next to flip, the one clamped hardest."""
    magnitude = trace.weight.grad.abs().flatten()
    after = (trace.weight.after / trace.scale_after).flatten()
    to_edge = (0.5 - (after - after.round()).abs()).abs()  # in units of the scale
    flips = trace.flips.flatten()
    travel = (after - trace.scaled.flatten()).abs()
    excess = (trace.unclamped - trace.codes).abs().flatten()
    return {
        "gradient": int(magnitude.argmax()),
        "flip": int((travel * flips).argmax() if flips.any() else to_edge.argmin()),
        "clamped": int(excess.argmax()) if excess.any() else None,
    }


def cell_of(flat: int | None, trace: StepTrace) -> Any:
    return None if flat is None else list(divmod(flat, trace.codes.shape[1]))


def numbers(trace: StepTrace, row: int, col: int, sine: Sine) -> dict[str, float]:
    """Every number of one weight's way through the step, in the order of the stages."""
    at = (row, col)
    contribution = trace.grad_output[:, row] * trace.input[:, col]  # (batch,); their sum is grad_quantized
    point = int((contribution if contribution.any() else trace.input[:, col]).abs().argmax())
    share = trace.quantized[at] * trace.input[point, col]
    largest = owner_of_scale(trace, row)
    return {
        "w": trace.weight.before[at],
        "w_max": trace.weight.before[largest].abs(),
        "w_max_row": largest[0],
        "w_max_col": largest[1],
        "s": trace.scale[at],
        "scaled": trace.scaled[at],
        "rounded": trace.unclamped[at],
        "quant_min": trace.spec.quant_min,
        "quant_max": trace.spec.quant_max,
        "code": trace.codes[at],
        "quantized": trace.quantized[at],
        "points": len(trace.input),
        "point": sine.x[point],
        "x": trace.input[point, col],
        "product": share,
        "rest": trace.output[point, row] - share,
        "y": trace.output[point, row],
        "prediction": trace.prediction[point],
        "target": sine.y[point],
        "loss": trace.loss,
        "grad_y": trace.grad_output[point, row],
        "grad_share": contribution[point],
        "grad_others": trace.grad_quantized[at] - contribution[point],
        "grad_quantized": trace.grad_quantized[at],
        "grad": trace.weight.grad[at],
        **{name: value[at] if isinstance(value, Tensor) else value for name, value in adam_of(trace.weight).items()},
        "w_after": trace.weight.after[at],
        "s_after": trace.scale_after[at],
        "scaled_after": trace.weight.after[at] / trace.scale_after[at],
        "code_after": trace.codes_after[at],
        **scale_numbers(trace, row, col),
    }


def owner_of_scale(trace: StepTrace, row: int) -> tuple[int, int]:
    """The largest of the weights that share the row's scale: a min-max scale is measured on it."""
    magnitude = trace.weight.before.abs()
    if trace.spec.granularity == "per_tensor":
        row = int(magnitude.amax(1).argmax())
    return row, int(magnitude[row].argmax())


def scale_numbers(trace: StepTrace, row: int, col: int) -> dict[str, Any]:
    """Of the learned scale that this weight has; nothing where scales are measured."""
    if trace.log2_scale is None or trace.log2_scale_after is None or trace.grad_scale is None:
        return {}
    per_weight = (trace.grad_quantized * trace.scale_slopes)[row, col]
    mine = (row, 0) if trace.grad_scale.numel() > 1 else (0,) * trace.grad_scale.dim()
    return {
        "slope": trace.scale_slopes[row, col],
        "scale_share": per_weight,
        "scale_factor": trace.scale_factor,
        "scale_elements": trace.scaled.numel() // trace.grad_scale.numel(),
        "grad_s": trace.grad_scale[mine],
        "log2_s": trace.log2_scale[mine],
        "log2_s_after": trace.log2_scale_after[mine],
    }


def adam_of(update: Update) -> dict[str, Any]:
    return {
        "m_before": update.exp_avg_before,
        "m": update.exp_avg,
        "u_before": update.exp_avg_sq_before,
        "u": update.exp_avg_sq,
        "t": update.step,
        "m_hat": update.corrected_avg,
        "u_hat": update.corrected_avg_sq,
        "lr": update.lr,
        "change": update.change,
    }


def curves(trace: StepTrace, row: int, col: int, sine: Sine) -> dict[str, list[float]]:
    """Over the training points, thinned out: this neuron with and without the weight, the fit, the gradient's parts."""
    thin = torch.linspace(0, len(trace.input) - 1, CURVE_POINTS).round().long()
    output, product = trace.output[:, row], trace.quantized[row, col] * trace.input[:, col]
    lines = {
        "x": sine.x.flatten(),
        "y": output,
        "rest": output - product,
        "prediction": trace.prediction.flatten(),
        "target": sine.y.flatten(),
        "parts": trace.grad_output[:, row] * trace.input[:, col],
    }
    return {name: [float(f"{value:.4g}") for value in line[thin].tolist()] for name, line in lines.items()}


def packed(codes: np.ndarray, bits: float) -> np.ndarray:
    """Two codes of up to four bits to a byte, the low nibble first, as in a file; wider ones a byte each."""
    if bits > 4:
        return codes
    low, high = np.resize(codes, (len(codes) + 1) // 2 * 2).reshape(-1, 2).T.astype(np.uint8) & 15
    return np.asarray(low | high << 4)


def base64_of(values: np.ndarray) -> str:
    """The bytes of an array, row after row."""
    return base64.b64encode(values.tobytes()).decode()


def exact(value: Any) -> float:
    """Nine digits tell every float32 apart."""
    return float(f"{float(value):.9g}")
