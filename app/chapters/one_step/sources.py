"""The lines of source that take the step, stage by stage."""

from typing import Any

from torch.optim import adam

from app.components.code import excerpt
from app.lab.fit import Experiment
from app.lab.tasks import SineTask
from qat_core.affine import best_fraction, dequantize_, minmax_qparams, round_to_codes
from qat_core.fake_quant import FakeQuantize
from qat_core.layers import QuantLayer, QuantLinear
from qat_core.lsq import LearnedScale, LSQuantize
from qat_core.ste import STEQuantize, ste_round


def sources() -> dict[str, Any]:
    """For each stage the lines that do it, by stage and where need be by the rule of the scale."""
    measured = excerpt(FakeQuantize._estimate, "return ste_round(x, scale")
    return {
        "latent": excerpt(QuantLayer.quantized, "weight, _ = self.weight_quantizer.with_scale("),
        "scale": excerpt(minmax_qparams, "largest = x.abs().amax(", "_finish(largest.div_("),
        "scale.mse": excerpt(best_fraction, "best = torch.where"),
        "scale.learned": excerpt(LearnedScale.qparams, "log2_ratio.exp2()"),
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
        "scale_gradient": excerpt(LSQuantize.backward, "grad_scale = summed("),
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
