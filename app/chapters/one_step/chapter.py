"""Chapter: one optimizer step, taken apart with the real tensors."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import Tensor
from torch.optim import adam

from app.components.code import excerpt, prose
from app.components.module import module_view
from app.lab.data import Sine
from app.lab.fit import Experiment, TrainingDiverged
from app.lab.tasks import SineTask
from app.lab.trace import StepTrace, Update, trace_step, traceable
from app.runs import messages
from app.runs.messages import to_json
from app.runs.progress import DEVICE, Progress
from app.runs.queue import exclusive
from app.runs.run import is_running
from app.session import Session, up_to_date
from qat_core.affine import dequantize_, minmax_qparams, mse_qparams, round_to_codes
from qat_core.fake_quant import FakeQuantize
from qat_core.layers import QuantLayer, QuantLinear
from qat_core.lsq import LearnedScale, LSQuantize
from qat_core.ste import STEQuantize, ste_round

HERE = Path(__file__).parent
TITLE = "One step, taken apart"
USES = ("bits", "granularity", "scale")

STRIDES = (1, 25, 100)
CURVE_POINTS = 64  # of the 256: enough for a line 400 pixels wide


@dataclass(frozen=True)
class Choice:
    """The weight that the visitor looks at; row and col None is the one with the largest gradient."""

    layer: str = "2"
    row: int | None = None
    col: int | None = None


def build(session: Session) -> None:
    """Draw the chapter."""
    with gr.Row(elem_classes="chapter wide"):
        with gr.Column(elem_classes="picture"):
            first = frame(session.progress.value, Choice())
            view = module_view(HERE / "one_step.js", first, "one-step", sources=to_json(sources()))
        with gr.Column(elem_classes="text"):
            prose(HERE / "text.md")

    inputs = [session.progress, *session.settings]
    quiet: dict[str, Any] = {"show_progress": "hidden", "preprocess": False}
    view.select(look, inputs, [view, session.progress], **quiet, trigger_mode="always_last")
    outputs = [view, session.feed, session.progress]
    view.submit(take_steps, inputs, outputs, **quiet, trigger_mode="multiple", concurrency_limit=1)


def look(request: gr.Request, event: gr.EventData, progress: Progress, *settings: Any) -> tuple[Any, ...]:
    """The coming step, seen from the weight that the visitor picked."""
    question = Question.of(event)
    if is_running(request.session_hash):  # and about to end, since its chapter was left; the page asks again
        return question.answer({"busy": True}), gr.skip()
    try:
        latest = up_to_date(progress, settings)
        return question.answer(contents(latest, parse_choice(event._data))), gr.skip() if latest is progress else latest
    except (ValueError, TrainingDiverged) as error:
        return question.answer({"problem": str(error)}), gr.skip()


def take_steps(request: gr.Request, event: gr.EventData, progress: Progress, *settings: Any) -> tuple[Any, ...]:
    """Move the visitor's training on by some steps, in all chapters, then look at the next one."""
    question = Question.of(event)
    if is_running(request.session_hash):
        busy = "Training is at work in another chapter. Press Pause there first."
        return question.answer({"problem": busy}), gr.skip(), gr.skip()
    try:
        choice, steps = parse_choice(event._data), parse_steps(event._data)
        progress = up_to_date(progress, settings)
        for later in progress.advance(until=progress.step + steps):
            progress = later
        return question.answer(contents(progress, choice)), messages.frame(progress), progress
    except (ValueError, TrainingDiverged) as error:
        return question.answer({"problem": str(error)}), gr.skip(), progress


def parse_choice(data: Any) -> Choice:
    """What the browser sent; which layers and weights there are, the network knows.

    Raises:
        ValueError: it is no choice; the message names it and what was expected.
    """
    if not isinstance(data, dict) or not isinstance(data.get("layer"), str):
        raise ValueError(f"{str(data)[:60]} is no choice of a weight; expected layer, row and col")
    cell = [data.get("row"), data.get("col")]
    if cell != [None, None] and not all(isinstance(i, int) and not isinstance(i, bool) for i in cell):
        raise ValueError(f"row={str(cell[0])[:20]}, col={str(cell[1])[:20]}; expected two whole numbers")
    return Choice(data["layer"][:20], *cell)


def parse_steps(data: dict[str, Any]) -> int:
    steps = data.get("steps")
    if isinstance(steps, bool) or steps not in STRIDES:
        raise ValueError(f"steps={str(steps)[:20]}; expected one of {', '.join(map(str, STRIDES))}")
    return int(steps)


@dataclass(frozen=True)
class Question:
    """What the browser asks.

    Attributes:
        number: counts its questions; the answer carries it, so that the page knows which answer is the last.
        has: names the matrix that it has, which need not be sent again.
    """

    number: int
    has: str

    @classmethod
    def of(cls, event: gr.EventData) -> "Question":
        data = event._data if isinstance(event._data, dict) else {}
        number, has = data.get("asked"), data.get("has")
        return cls(number if type(number) is int else 0, has if isinstance(has, str) else "")

    def answer(self, contents: dict[str, Any]) -> str:
        if contents.get("matrix") == self.has:
            contents = {name: value for name, value in contents.items() if name not in ("codes", "flips")}
        return to_json({**contents, "asked": self.number})


def frame(progress: Progress, choice: Choice) -> str:
    """The first answer, which nobody asked for."""
    return Question(0, "").answer(contents(progress, choice))


def contents(progress: Progress, choice: Choice) -> dict[str, Any]:
    """What `one_step.js` draws: the layer as a whole, and every number of one weight.

    Raises:
        ValueError: there is no such weight.
    """
    with exclusive():
        experiment = Experiment.restore(progress.snapshot, DEVICE)
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
        "codes": base64_of(packed(trace.codes.flatten().numpy().astype(np.int8), trace.spec.bits)),
        "flips": base64_of(np.packbits(trace.flips.numpy())),
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
    if trace.log2_scale is None or trace.grad_scale is None:
        return {}
    per_weight = (trace.grad_quantized * trace.scale_slopes)[row, col]
    mine = (row, 0) if trace.grad_scale.dim() else ()
    return {
        "slope": trace.scale_slopes[row, col],
        "scale_share": per_weight,
        "scale_factor": trace.scale_factor,
        "scale_elements": trace.scaled.numel() // trace.grad_scale.numel(),
        "grad_s": trace.grad_scale[mine],
        "log2_s": trace.log2_scale.before[mine],
        "grad_log2_s": trace.log2_scale.grad[mine],
        "log2_s_change": trace.log2_scale.change[mine],
        "log2_s_after": trace.log2_scale.after[mine],
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


def sources() -> dict[str, Any]:
    """For each stage the lines that do it, by stage and where need be by the rule of the scale."""
    measured = excerpt(FakeQuantize.with_scale, "y = ste_round(groups, scale")
    return {
        "latent": excerpt(QuantLayer.quantized, "weight, _ = self.weight_quantizer.with_scale(self.weight)"),
        "scale": excerpt(minmax_qparams, "largest = x.abs().amax(", "_finish(largest.div_("),
        "scale.mse": excerpt(mse_qparams, "best_scale = torch.where"),
        "scale.learned": excerpt(LearnedScale.qparams, "log2_scale.exp2()"),
        "divide": excerpt(round_to_codes, "torch.div"),
        "round": excerpt(round_to_codes, "codes.round_()"),
        "clamp": measured,
        "clamp.mse": excerpt(STEQuantize.forward, "unclamped.clamp("),
        "clamp.learned": excerpt(LSQuantize.forward, "unclamped.clamp("),
        "dequantize": excerpt(dequantize_, "codes.mul_(scale)"),
        "layer": excerpt(QuantLinear.forward, "F.linear"),
        "loss": excerpt(SineTask.loss, "F.mse_loss"),
        "gradient": excerpt(Experiment._optimize, "loss.backward()"),
        "ste": excerpt(ste_round, "y = x.clone()", "dequantize_(round_to_codes("),
        "ste.mse": excerpt(STEQuantize.backward, "where_not_clamped"),
        "ste.learned": excerpt(LSQuantize.backward, "grad_x = where_not_clamped"),
        "scale_gradient": excerpt(LSQuantize.backward, "grad_scale = slopes"),
        "averages": torch_adam("exp_avg.lerp_(grad", "value=1 - beta2)"),
        "update": torch_adam("param.addcdiv_(exp_avg, denom, value"),
        "flip": excerpt(FakeQuantize.codes, "codes = quantize("),
    }


def torch_adam(*marked: str) -> dict[str, Any]:
    """The lines of torch's own Adam; where this version has others, the line that calls it."""
    try:
        return excerpt(adam._single_tensor_adam, *marked, around=1)
    except (AttributeError, LookupError):
        return excerpt(Experiment._optimize, "optimizer.step()")
