"""Quantization-aware training in pure PyTorch, for anybody's `nn.Module`."""

from qat_core.fake_quant import FakeQuantize
from qat_core.layers import QuantLinear
from qat_core.prepare import convert, prepare
from qat_core.spec import QATConfig, QuantSpec
from qat_core.ste import STEQuantize

__all__ = ["FakeQuantize", "QATConfig", "QuantLinear", "QuantSpec", "STEQuantize", "convert", "prepare"]
