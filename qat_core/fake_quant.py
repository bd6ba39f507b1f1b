"""FakeQuantize: float numbers that can only take the values an integer file can hold."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from qat_core.affine import Axis, dequantize, dynamic_qparams, from_groups, quantize, reduced_dims, to_groups, widened
from qat_core.lsq import LearnedScale, LearnedScaleOfWeight, LSQuantize, gradient_factor
from qat_core.nested import on_values
from qat_core.observer import Fixed, MovingRange, NoDataError, fix
from qat_core.processes import in_trace, in_transform
from qat_core.search import SmallestError
from qat_core.source import FromTensor, Source, Take
from qat_core.spec import QuantSpec
from qat_core.ste import STEQuantize, ste_round, ste_round_by, straight_through


class FakeQuantize(nn.Module):
    """A spec, a source of scales and a straight-through estimator.

    Make one with `for_weight` or `for_activation`.

    Shape: any tensor in, the same shape out, every value on the grid (code - zero_point + shift) * scale.
    Half precision is quantized in float32 and returned in its own type.
    """

    def __init__(self, spec: QuantSpec, source: Source, layer: str = "") -> None:
        super().__init__()
        self.spec, self.source, self.layer = spec, source, layer
        self.enabled = True

    @classmethod
    def for_weight(cls, spec: QuantSpec, weight: Tensor, axis: Axis = 0) -> "FakeQuantize":
        """For a weight whose output channels lie along `axis`; learned scales begin near its best ones."""
        if spec.scale == "minmax":
            return cls(spec, FromTensor(spec, axis))
        groups = to_groups(weight, spec)
        dims = reduced_dims(groups, spec, axis)
        shape = torch.Size(1 if d in dims else size for d, size in enumerate(groups.shape)) if dims else torch.Size()
        if spec.scale == "mse":
            searched = SmallestError(spec, axis, shape).to(weight.device)
            searched.observe(groups.float())
            return cls(spec, searched)
        learned = LearnedScaleOfWeight(spec, axis, dims, shape).to(weight.device)
        learned.observe(groups.float())
        return cls(spec, learned)

    @classmethod
    def for_activation(cls, spec: QuantSpec, layer: str = "") -> "FakeQuantize":
        """For the input of a layer of that name: one scale, or with `dynamic` one for each row or group of a row."""
        if spec.dynamic:
            return cls(spec, FromTensor(spec, axis=0), layer)
        source: Source = MovingRange(spec)
        if spec.scale == "learned":
            source = LearnedScale(source, torch.Size(), spec)
        return cls(spec, source, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.with_scale(x)[0]

    def with_scale(self, x: Tensor, at_least: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x on the grid, and the scale of the grid, which is `at_least` so large.

        Not enabled: x itself. Ranges still watch it, so that they are there when quantization sets in.
        """
        if x.is_nested:
            scales: list[Tensor] = []  # of all its rows there is one

            def values_on_grid(values: Tensor) -> Tensor:
                values, scale = self.with_scale(values, at_least)
                scales.append(scale)
                return values

            return on_values(x, values_on_grid), scales[0]
        source = self.source
        if not self.enabled:
            if isinstance(source, MovingRange):
                source.observe(self._groups(x))
            return x, x.new_ones(())
        groups = self._groups(x)
        if self.spec.dynamic:
            scale, factor = dynamic_qparams(groups.detach(), self.spec)
            return from_groups(ste_round_by(groups, factor, scale), x.shape).to(x.dtype), scale
        try:
            source.observe(groups)
            scale, zero_point = source.qparams(groups)
        except NoDataError as error:
            raise self._of_this_layer(error) from error
        if at_least is not None:
            scale = _raised(scale, at_least)
        y = self._estimate(groups, scale, zero_point)
        return y if groups is x else from_groups(y, x.shape).to(x.dtype), scale

    def rows(self, table: Tensor, take: Take) -> Tensor:
        """`take` of the table on its grid, at the cost of the rows that are taken; only where `each_row`.

        Args:
            table: a weight, (rows, columns).
            take: picks rows of a matrix, with their gradients.
        """
        x = take(table)  # (taken, columns)
        if not self.enabled:
            return x
        groups = self._groups(x)
        self.source.observe(self._groups(table))
        scale, zero_point = self.source.qparams(groups, lambda of: take(of.flatten(1)).reshape(-1, *of.shape[1:]))
        y = self._estimate(groups, scale, zero_point)
        return y if groups is x else from_groups(y, x.shape).to(x.dtype)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """The codes of the forward pass: int8 when the spec is symmetric, else uint8, of x's shape."""
        groups = self._groups(x)
        if self.spec.dynamic:
            codes = (groups * dynamic_qparams(groups, self.spec)[1]).round_()
        else:
            scale, zero_point = self.source.qparams(groups)
            codes = quantize(groups, scale, zero_point, self.spec.quant_min, self.spec.quant_max, self.spec.shift)
        return from_groups(codes, x.shape).to(torch.int8 if self.spec.symmetric else torch.uint8)

    @torch.no_grad()
    def values(self, codes: Tensor, x: Tensor) -> Tensor:
        """What codes of x's shape stand for on the grid that holds for x now."""
        scale, zero_point = self.source.qparams(self._groups(x))
        return from_groups(dequantize(self._groups(codes), scale, zero_point, self.spec.shift), x.shape).to(x.dtype)

    def observe(self, x: Tensor) -> None:
        """Take x in, as the forward pass does before it quantizes it."""
        self.source.observe(self._groups(x))

    def stop_growing(self, x: Tensor) -> None:
        """Parts of x are written from its scale from now on, which must not grow with it."""
        self.source.stop_growing(self._groups(x))

    def freeze(self, x: Tensor, at_least: Tensor | None = None) -> None:
        """Keep the scale and zero point that hold for x now."""
        try:
            self.source = fix(self.source, self._groups(x), self.spec, at_least)
        except NoDataError as error:
            raise self._of_this_layer(error) from error

    def upgrade(self, state_dict: dict[str, Any], prefix: str, weight: Tensor) -> None:
        """Earlier versions had the logarithm of a weight's learned scale itself, not of its ratio to the weight."""
        whole = f"{prefix}source.log2_scale"
        if whole in state_dict and isinstance(self.source, LearnedScale):
            nothing = torch.zeros_like(self.source.begin)
            state_dict[whole] = state_dict[whole] - self.source.log2_begin(self._groups(weight.detach()), nothing)

    @property
    def each_row(self) -> bool:
        """Does each row of a matrix get the numbers that it would get alone?"""
        return self.source.each_row and self.spec.granularity != "per_tensor"

    @property
    def is_frozen(self) -> bool:
        return isinstance(self.source, Fixed)

    def extra_repr(self) -> str:
        return str(self.spec)

    def _of_this_layer(self, error: NoDataError) -> NoDataError:
        return NoDataError(f"layer {self.layer!r}: {error}, or leave it in float: overrides={{{self.layer!r}: None}}")

    def _groups(self, x: Tensor) -> Tensor:
        x = widened(x)
        if self.spec.dynamic:
            x = x.reshape(-1, x.shape[-1])
        return to_groups(x, self.spec)

    def _estimate(self, x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
        spec = self.spec
        if self.source.covers_all:
            return ste_round(x, scale, spec.shift)
        if in_transform() or in_trace():  # which saves no autograd.Function
            factor = gradient_factor(x.numel() // max(scale.numel(), 1), spec.quant_max)
            return straight_through(x, scale, zero_point, spec.quant_min, spec.quant_max, spec.shift, factor)
        estimator = LSQuantize if scale.requires_grad else STEQuantize
        y = estimator.apply(x, scale, zero_point, spec.quant_min, spec.quant_max, spec.shift)  # type: ignore[no-untyped-call]
        return cast(Tensor, y)


def _raised(scale: Tensor, at_least: Tensor) -> Tensor:
    """The larger of the two; where a learned scale is raised it still gets its gradient."""
    if scale.requires_grad or in_trace():  # whose check has no gradients
        return scale + (at_least - scale.detach()).clamp_(min=0)
    return torch.maximum(scale, at_least)
