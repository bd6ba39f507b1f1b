"""The arithmetic of affine quantization: pure functions, the one place where codes come from.

Three conventions hold everywhere, because onnxruntime computes this way and any other choice moves
about one code in a thousand to its neighbour:

- true division by the scale, never multiplication by its reciprocal;
- round half to even;
- the zero point is added after rounding.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", equation 1; ONNX operators QuantizeLinear and DequantizeLinear.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from qat_core.spec import QuantSpec

# Scales stay above this: the product of two of them is still a normal float32 number, and x / scale
# never divides by zero in a tensor that is all zeros.
SMALLEST_SCALE = 2.0**-60
MSE_STEPS = 80
MSE_NEIGHBOURS = 2
Axis = int | tuple[int, ...]  # of the output channels in a weight; of experts two, theirs and that of their outputs
PIECE = 2**17  # elements: small enough for a processor's cache, in which ten passes over them cost little


def quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, quant_min: int, quant_max: int, shift: float = 0.0
) -> Tensor:
    """The integer code of every element, still in x's floating-point type.

    Args:
        x: any shape, finite.
        scale: positive, broadcasts against x.
        zero_point: whole numbers, broadcasts against x; None means 0.
        quant_min, quant_max: the smallest and largest code.
        shift: 0.5 on the half-shifted grid, otherwise 0.

    Returns:
        Tensor of x's shape: clamp(round(x / scale - shift) + zero_point, quant_min, quant_max).
    """
    return round_to_codes(x, scale, zero_point, shift).clamp_(quant_min, quant_max)


def round_to_codes(
    x: Tensor, scale: Tensor, zero_point: Tensor | None, shift: float = 0.0, out: Tensor | None = None
) -> Tensor:
    """`quantize` before its clamp: codes of a grid without ends, in new memory or in `out`."""
    codes = torch.div(x, scale, out=out)
    if shift:
        codes -= shift
    codes.round_()
    if zero_point is not None:
        codes += zero_point
    return codes


def dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor | None, shift: float = 0.0) -> Tensor:
    """The real number that every code stands for: (codes - zero_point + shift) * scale."""
    return dequantize_(codes.clone(), scale, zero_point, shift)


def dequantize_(codes: Tensor, scale: Tensor, zero_point: Tensor | None, shift: float = 0.0) -> Tensor:
    """`dequantize` in place, for codes that nobody else holds."""
    if zero_point is not None:
        codes -= zero_point
    if shift:
        codes += shift
    return codes.mul_(scale)


def minmax_qparams(x: Tensor, spec: QuantSpec, axis: Axis = 0) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point that cover the whole range of a tensor.

    Args:
        x: the tensor, as `to_groups` returns it.
        spec: its spec.
        axis: the dimension of the output channels, or the dimensions, for "per_channel".

    Returns:
        scale and zero_point (None when symmetric), shaped to broadcast against x.
    """
    dims = reduced_dims(x, spec, axis)
    if spec.symmetric:
        largest = x.abs().amax(dims, bool(dims))
        return _finish(largest.div_(spec.quant_max + spec.shift), spec), None
    return qparams_of_range(x.amin(dims, bool(dims)), x.amax(dims, bool(dims)), spec)


def mse_qparams(x: Tensor, spec: QuantSpec, axis: Axis = 0) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point with the smallest squared error of rounding plus clamping.

    The range of min-max is shrunk to 1, 79/80, 78/80 ... of itself, and each scale keeps its best fraction.
    Arguments and result as `minmax_qparams`.

    Source: Sung et al. 2015, "Resiliency of Deep Neural Networks under Quantization", section 3.
    """
    full_scale, zero_point = minmax_qparams(x, spec, axis)
    return shrunk(full_scale, mse_fraction(x, full_scale, zero_point, spec, axis), spec), zero_point


def mse_fraction(
    x: Tensor,
    full_scale: Tensor,
    zero_point: Tensor | None,
    spec: QuantSpec,
    axis: Axis = 0,
    around: Tensor | None = None,
) -> Tensor:
    """The fraction of each min-max scale, in steps of 1/80, with the smallest squared error; the larger of equals.

    Args:
        x, spec, axis: as `minmax_qparams` takes them.
        full_scale, zero_point: what `minmax_qparams` answers for x.
        around: fractions to begin from, of full_scale's shape: only their neighbours, MSE_NEIGHBOURS on either side,
            are tried. None tries all.
    """
    rows = len(x) if full_scale.shape[:1] == x.shape[:1] else 1
    count = min(x.numel() // PIECE, rows // 2)  # of two rows at least: torch sums a single one in another order
    if count > 1 and x.is_cpu and not torch.compiler.is_compiling():
        parts, scales = x.tensor_split(count), full_scale.tensor_split(count)
        zeros, starts = ([None] * count if of is None else of.tensor_split(count) for of in (zero_point, around))
        pieces = zip(parts, scales, zeros, starts, strict=True)
        return torch.cat([best_fraction(*piece, spec, axis) for piece in pieces])
    return best_fraction(x, full_scale, zero_point, around, spec, axis)


def best_fraction(
    x: Tensor, full_scale: Tensor, zero_point: Tensor | None, around: Tensor | None, spec: QuantSpec, axis: Axis
) -> Tensor:
    """`mse_fraction` of one piece."""
    dims = reduced_dims(x, spec, axis)
    best = torch.ones_like(full_scale) if around is None else around.to(full_scale.dtype)
    tries: Iterable[Tensor] = (best.new_full((), step / MSE_STEPS) for step in range(MSE_STEPS, 0, -1))
    if around is not None:
        sides = range(MSE_NEIGHBOURS, -MSE_NEIGHBOURS - 1, -1)
        tries = [(around + side / MSE_STEPS).clamp_(1 / MSE_STEPS, 1).to(best.dtype) for side in sides]
    best_error = torch.full_like(full_scale, torch.inf)
    for fraction in tries:
        scale = shrunk(full_scale, fraction, spec)
        codes = quantize(x, scale, zero_point, spec.quant_min, spec.quant_max, spec.shift)
        error = dequantize_(codes, scale, zero_point, spec.shift).sub_(x).square_().sum(dims, keepdim=bool(dims))
        best = torch.where(error < best_error, fraction, best)
        best_error = torch.minimum(error, best_error)
    return best


def shrunk(full_scale: Tensor, fraction: Tensor, spec: QuantSpec) -> Tensor:
    """That fraction of a scale."""
    return _finish(full_scale * fraction, spec)


def dynamic_qparams(x: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Scale of each row or group, and the factor that takes x to its codes.

    onnxruntime's quick kernel does not divide by the scale, largest / 127. It multiplies by 127 / largest, which is
    rounded once where 1 / scale would be rounded twice: about one code in a million depends on it. Both divisions
    are of two tensors, since torch computes `number / tensor` as number * (1 / tensor).
    """
    largest = x.abs().amax(reduced_dims(x, spec, 0), keepdim=True)
    top = largest.new_full((), spec.quant_max)
    largest = largest.clamp(min=spec.quant_max * SMALLEST_SCALE)
    scale = _finish(largest / top, spec)
    return scale, scale.reciprocal() if spec.power_of_two else top / largest


def qparams_of_range(low: Tensor, high: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point of a range.

    Symmetric: the larger magnitude becomes the largest level, quant_max + shift. Asymmetric: [min(low, 0),
    max(high, 0)] is divided into quant_max steps, and the zero point is the code of 0.0, so that zeros (padding,
    ReLU) stay exact.
    """
    if spec.symmetric:
        largest = torch.maximum(-low, high)
        return _finish(largest.div_(spec.quant_max + spec.shift), spec), None
    low, high = low.clamp_max(0), high.clamp_min(0)
    scale = _finish((high - low).div_(spec.quant_max), spec)  # quant_min is 0
    return scale, (-low).div_(scale).round_()


def widened(x: Tensor) -> Tensor:
    """Half precision in float32, which holds all codes and the steps of a scale; anything else as it is."""
    return x.float() if x.dtype.itemsize < 4 else x


def to_groups(x: Tensor, spec: QuantSpec) -> Tensor:
    """The view of a tensor in which one scale covers whole dimensions.

    Per group: (rows, ...) -> (rows, groups, group_size), a short last group padded with zeros, which no largest
    magnitude notices. Otherwise x itself.
    """
    if spec.granularity != "per_group":
        return x
    rows = x.flatten(1)
    short = -rows.shape[1] % spec.group_size
    if short:
        rows = F.pad(rows, (0, short))
    return rows.reshape(-1, rows.shape[1] // spec.group_size, spec.group_size)


def from_groups(groups: Tensor, shape: torch.Size) -> Tensor:
    """Undo `to_groups`, given the shape it was called with."""
    if groups.shape == shape:
        return groups
    elements = shape.numel() // max(len(groups), 1)
    return groups.flatten(1)[:, :elements].reshape(shape)


def reduced_dims(x: Tensor, spec: QuantSpec, axis: Axis) -> tuple[int, ...]:
    """The dimensions that share one scale; none named means all of them."""
    if spec.granularity == "per_tensor":
        return ()
    if spec.granularity == "per_group":
        return (x.dim() - 1,)
    kept = axis if isinstance(axis, tuple) else (axis,)
    return tuple(dim for dim in range(x.dim()) if dim not in kept)


def _finish(scale: Tensor, spec: QuantSpec) -> Tensor:
    if spec.power_of_two:
        scale = torch.exp2(torch.ceil(torch.log2(scale)))
    return scale.clamp_min_(SMALLEST_SCALE)
