"""Layers that quantize their weight on the way through. Everything else stays the FP32 layer's own.

The names of parameters do not change, so an FP32 checkpoint loads into the quantized layer.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from qat_core.fake_quant import FakeQuantize
from qat_core.spec import QATConfig


class QuantLinear(nn.Linear):
    """`nn.Linear` with a fake-quantized weight.

    Shape: (..., in_features) -> (..., out_features), as in FP32.
    """

    weight_quantizer: FakeQuantize

    @classmethod
    def from_float(cls, linear: nn.Linear, config: QATConfig) -> "QuantLinear":
        """The same layer, sharing its parameters, quantized as `config` says."""
        layer = cls.__new__(cls)
        layer.__dict__ = linear.__dict__.copy()
        layer._modules = linear._modules.copy()
        layer.weight_quantizer = FakeQuantize(config.weight)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_quantizer(self.weight)  # (out, in), on the grid
        return F.linear(x, weight, self.bias)
