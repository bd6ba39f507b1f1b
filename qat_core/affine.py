"""The arithmetic of affine quantization: pure functions, the one place where codes come from.

Three conventions hold everywhere, because onnxruntime computes this way and any other choice moves
about one code in a thousand to its neighbour:

- true division by the scale, never multiplication by its reciprocal;
- round half to even;
- the zero point is added after rounding.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", equation 1; ONNX operators QuantizeLinear and DequantizeLinear.
"""

import torch
from torch import Tensor

from qat_core.spec import QuantSpec

# Scales stay above this: the product of two of them is still a normal float32 number, and x / scale
# never divides by zero in a tensor that is all zeros.
SMALLEST_SCALE = 2.0**-60


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor | None, quant_min: int, quant_max: int) -> Tensor:
    """The integer code of every element, still in x's floating-point type.

    Args:
        x: any shape, finite.
        scale: positive, broadcasts against x.
        zero_point: whole numbers, broadcasts against x; None means 0.
        quant_min, quant_max: the smallest and largest code.

    Returns:
        Tensor of x's shape: clamp(round(x / scale) + zero_point, quant_min, quant_max).
    """
    codes = torch.div(x, scale).round_()
    if zero_point is not None:
        codes += zero_point
    return codes.clamp_(quant_min, quant_max)


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    """The real number that every code stands for: (codes - zero_point) * scale."""
    if zero_point is not None:
        codes = codes - zero_point
    return codes * scale


def choose_qparams(x: Tensor, spec: QuantSpec, axis: int = 0) -> tuple[Tensor, Tensor | None]:
    """Min-max scale and zero point of a tensor.

    Symmetric: scale = max|x| / quant_max, no zero point. Asymmetric: the range [min(x, 0), max(x, 0)]
    is divided into quant_max - quant_min steps, and the zero point is the code of 0.0.

    Args:
        x: the tensor, as `to_groups` returns it.
        spec: its spec.
        axis: the dimension of the output channels, for "per_channel".

    Returns:
        scale and zero_point (None when symmetric), shaped to broadcast against x.
    """
    dims = _reduced_dims(x, spec, axis)
    steps = spec.quant_max - spec.quant_min
    if spec.symmetric:
        scale = x.abs().amax(dims, keepdim=bool(dims)) / spec.quant_max
        return _finish(scale, spec), None
    low = x.amin(dims, keepdim=bool(dims)).clamp(max=0)
    high = x.amax(dims, keepdim=bool(dims)).clamp(min=0)
    scale = _finish((high - low) / steps, spec)
    zero_point = (spec.quant_min - torch.round(low / scale)).clamp_(spec.quant_min, spec.quant_max)
    return scale, zero_point


def to_groups(x: Tensor, spec: QuantSpec) -> Tensor:
    """The view of a weight in which one scale covers whole dimensions.

    Per group: (out, in) -> (out, in / group_size, group_size); otherwise x itself.

    Raises:
        ValueError: the group size does not divide the elements of an output channel.
    """
    if spec.granularity != "per_group":
        return x
    elements = x[0].numel()
    if elements % spec.group_size:
        raise ValueError(
            f"group_size={spec.group_size} does not divide the {elements} weights of an output channel "
            f"(weight of shape {tuple(x.shape)})"
        )
    return x.reshape(x.shape[0], -1, spec.group_size)


def _reduced_dims(x: Tensor, spec: QuantSpec, axis: int) -> tuple[int, ...]:
    """The dimensions that share one scale; none named means all of them."""
    if spec.granularity == "per_tensor":
        return ()
    if spec.granularity == "per_group":
        return (-1,)
    return tuple(d for d in range(x.dim()) if d != axis % x.dim())


def _finish(scale: Tensor, spec: QuantSpec) -> Tensor:
    if spec.power_of_two:
        scale = torch.exp2(torch.ceil(torch.log2(scale)))
    return scale.clamp(min=SMALLEST_SCALE)
