"""Quantization-aware training in pure PyTorch, for anybody's `nn.Module`."""

from qat_core.distill import Distillation, distill
from qat_core.fake_quant import FakeQuantize
from qat_core.layers import QuantLayer, QuantLinear
from qat_core.observer import NoDataError
from qat_core.oscillations import Oscillations, annealed_threshold
from qat_core.plan import plan
from qat_core.planned import Plan, PlannedLayer
from qat_core.prepare import calibrate, convert, prepare
from qat_core.schedule import Schedule
from qat_core.sensitivity import Mix, SensitivityRow, frontier, sensitivity, suggest
from qat_core.spec import QATConfig, QuantSpec
from qat_core.ste import STEQuantize
from qat_core.synchronize import synchronize

__all__ = [
    "Distillation",
    "FakeQuantize",
    "Mix",
    "NoDataError",
    "Oscillations",
    "Plan",
    "PlannedLayer",
    "QATConfig",
    "QuantLayer",
    "QuantLinear",
    "QuantSpec",
    "STEQuantize",
    "Schedule",
    "SensitivityRow",
    "annealed_threshold",
    "calibrate",
    "convert",
    "distill",
    "frontier",
    "plan",
    "prepare",
    "sensitivity",
    "suggest",
    "synchronize",
]
