"""Layers that quantize on the way through. Everything else stays the FP32 layer's own.

The names of parameters do not change, so an FP32 checkpoint loads into the quantized layer.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qat_core.affine import Axis, widened
from qat_core.batches import require_module
from qat_core.fake_quant import FakeQuantize
from qat_core.lsq import LearnedScale
from qat_core.permanent import make_permanent
from qat_core.processes import on_grid_in_calls, parameter_in_calls
from qat_core.spec import QATConfig, QuantSpec
from qat_core.ste import ste_round

LARGEST_BIAS = 2.0**30  # of INT32's 2**31, so that no rounding on the way can reach the end of the range
ROW_LAYERS = (nn.Linear, nn.MultiheadAttention)


class QuantLayer(nn.Module):
    """What all quantized layers have: quantizers beside the parameters of the FP32 layer.

    Every parameter named in `weight_names` has a quantizer named after it, such as `weight_quantizer`. The
    `input_quantizer` is None where activations stay in float.

    Whoever reads such a parameter while the model is being called gets it on its grid: a head that multiplies by
    `embedding.weight`, a model that returns it. Outside of any call, and for the layer itself, it is the parameter.
    """

    axis: ClassVar[Axis] = 0  # of the output channels in a weight
    weight = on_grid_in_calls("weight")
    bias: Tensor | None
    weight_quantizer: FakeQuantize
    input_quantizer: FakeQuantize | None

    @classmethod
    def from_float(cls, layer: nn.Module, config: QATConfig, name: str = "") -> "QuantLayer":
        """The same layer, sharing its parameters, quantized as `config` says; errors call it by `name`.

        What is learned of a layer that does not learn does not learn either.
        """
        twin = cls.__new__(cls)
        twin.__dict__ = {
            key: value.copy() if isinstance(value, dict) else value for key, value in layer.__dict__.items()
        }
        for part in cls.weight_names(twin):
            weight = twin.latent(part)
            quantizer = FakeQuantize.for_weight(config.weight, weight, cls.axis)
            setattr(twin, f"{part}_quantizer", quantizer.requires_grad_(weight.requires_grad))
        spec, twin.input_quantizer = cls.input_spec(config), None
        if spec is not None:
            learns = any(p.requires_grad for p in layer.parameters(recurse=False))
            twin.input_quantizer = FakeQuantize.for_activation(spec, name or "model")
            twin.input_quantizer.requires_grad_(learns).to(weight.device)
        return twin

    @classmethod
    def input_spec(cls, config: QATConfig) -> QuantSpec | None:
        """How this kind of layer quantizes its input; dynamic scales need rows, which an image has not."""
        if config.activation is None or (config.activation.dynamic and not issubclass(cls, ROW_LAYERS)):
            return None
        return config.activation

    def weight_names(self: nn.Module) -> tuple[str, ...]:
        """The parameters that are quantized; asked of the FP32 layer as well, before it has become this one."""
        return ("weight",)

    def latent(self, name: str) -> Tensor:
        """The weight of that name as it is trained, whoever asks."""
        weight = self._parameters.get(name)
        if weight is None:  # computed before each call, or when it is read
            weight = self.__dict__.get(name)
        return cast(Tensor, getattr(self, name)) if weight is None else weight

    def get_parameter(self, target: str) -> Any:
        return parameter_in_calls(self, target)

    def quantized_weights(self) -> list[tuple[str, Tensor, FakeQuantize]]:
        """Name, tensor and quantizer of each."""
        return [(name, self.latent(name), getattr(self, f"{name}_quantizer")) for name in self.weight_names()]

    def quantized(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, weight and bias, each on its grid.

        When the input is quantized, the bias lies on the grid input scale x weight scale: that is the unit in which
        an integer accumulator counts, and onnxruntime puts the bias there whether it was trained so or not.

        Source: Jacob et al. 2018, section 2.4.
        """
        if self.input_quantizer is None:
            weight, _ = self.weight_quantizer.with_scale(self.latent("weight"))
            return x, weight, self.bias
        x, input_scale = self.input_quantizer.with_scale(x)
        bias = self.bias
        if bias is None or not self.has_integer_accumulator():
            return x, self.weight_quantizer(self.latent("weight")), bias
        at_least = smallest_scale(bias, input_scale)
        weight, weight_scale = self.weight_quantizer.with_scale(self.latent("weight"), at_least)
        return x, weight, quantized_bias(bias, input_scale, weight_scale)

    def has_integer_accumulator(self) -> bool:
        """Is one unit enough for all products of an output channel?"""
        activation = self.input_quantizer
        if activation is None or activation.spec.dynamic or not (activation.enabled and self.weight_quantizer.enabled):
            return False
        return self.weight_quantizer.spec.granularity != "per_group" and not self.weight_quantizer.spec.half_shift

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        metadata: dict[str, Any],
        strict: bool,
        missing: list[str],
        *args: Any,
    ) -> None:
        """A checkpoint that has a weight and nothing for its quantizer is one of FP32: the scale of the weight that
        was here says nothing about the one that comes. One that has neither is missing both: of layers that share a
        weight, formats without shared tensors keep one. Where it takes the layer off the meta device, its quantizers,
        which it may have nothing for, come along."""
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *args)
        weight = self.latent(self.weight_names()[0])
        for quantizer in [] if weight.is_meta else [q for q in self.children() if isinstance(q, FakeQuantize)]:
            if any(tensor.is_meta for tensor in quantizer.state_dict().values()):
                quantizer.to_empty(device=weight.device)
        for name, weight, quantizer in self.quantized_weights():
            own = f"{prefix}{name}_quantizer."
            if not any(key.startswith(own) for key in state_dict):
                if prefix + name in state_dict:
                    quantizer.source.restart()
                elif name in self._parameters:
                    missing += quantizer.state_dict(prefix=own)
            quantizer.upgrade(state_dict, own, weight)

    @torch.no_grad()
    def begin_scales(self) -> None:
        """Find where learned scales of weights begin now, which a compiled forward pass has no time for.

        What is computed before each call, and what is sharded, is there in the next call only.
        """
        for name, weight, quantizer in self.quantized_weights():
            if name in self._parameters and type(weight) is nn.Parameter and isinstance(quantizer.source, LearnedScale):
                quantizer.observe(weight)

    @torch.no_grad()
    def fix_scales(self) -> None:
        """Keep the scales as the constants that they are now; what something computes becomes a parameter."""
        at_least = None
        make_permanent(self)
        if self.input_quantizer is not None and not self.input_quantizer.spec.dynamic:
            self.input_quantizer.freeze(torch.empty(0))
            if self.bias is not None and self.has_integer_accumulator():
                input_scale, _ = self.input_quantizer.source.qparams(torch.empty(0))
                at_least = smallest_scale(self.bias, input_scale)
        for _, weight, quantizer in self.quantized_weights():
            quantizer.freeze(weight, at_least)

    @torch.no_grad()
    def on_grid(self) -> Iterator[tuple[str, Tensor]]:
        """Parameter and its numbers in the forward pass, by the scales that are fixed: each weight, and a bias in the
        unit of an integer accumulator."""
        for name, weight, quantizer in self.quantized_weights():
            yield name, quantizer(weight)
        if self.input_quantizer is not None and self.bias is not None and self.has_integer_accumulator():
            input_scale, _ = self.input_quantizer.source.qparams(torch.empty(0))
            weight_scale, _ = self.weight_quantizer.source.qparams(torch.empty(0))
            name = next(name for name, parameter in self._parameters.items() if parameter is self.bias)
            yield name, quantized_bias(self.bias, input_scale, weight_scale)

    def put_on_grid(self, replaced: dict[Tensor, nn.Parameter]) -> None:
        """Put weights and bias on their grids for good.

        Args:
            replaced: weight -> what it has become, so that tied layers stay tied, if their scales are the same: of
                layers that were tied after `prepare` each has its own. Weights become parameters of their own: what
                somebody else holds and reads in float stays as it was.
        """
        for name, numbers in self.on_grid():
            on_grid = nn.Parameter(numbers, requires_grad=False)
            first = replaced.setdefault(self.latent(name), on_grid)
            setattr(self, name, first if torch.equal(first, on_grid) else on_grid)


def quantized_bias(bias: Tensor, input_scale: Tensor, weight_scale: Tensor) -> Tensor:
    """The bias as INT32 would hold it, in units of input scale x weight scale."""
    unit = (input_scale * weight_scale).detach().flatten()  # (out,) or (1,)
    if 1 < unit.numel() < bias.numel():
        unit = unit.repeat(bias.numel() // unit.numel())  # grouped transposed convolutions share channel scales
    return ste_round(widened(bias), unit).to(bias.dtype)


def smallest_scale(bias: Tensor, input_scale: Tensor) -> Tensor:
    """The weight scale below which the bias would not fit into INT32: weights of zero keep their bias."""
    largest: Tensor = torch.linalg.vector_norm(widened(bias.detach()), math.inf)
    return largest / (input_scale.detach() * LARGEST_BIAS)


class QuantLinear(QuantLayer, nn.Linear):  # type: ignore[misc]
    """`nn.Linear`: (..., in_features) -> (..., out_features)."""

    def forward(self, input: Tensor) -> Tensor:
        x, weight, bias = self.quantized(input)  # (..., in), (out, in), (out,)
        return F.linear(x, weight, bias)


class QuantConv1D(QuantLayer):
    """The linear layer of GPT-2 in transformers, `Conv1D`: (..., in) -> (..., out), its weight (in, out).

    Groups are neighbours in a row of that weight.
    """

    axis = 1

    @classmethod
    def input_spec(cls, config: QATConfig) -> QuantSpec | None:
        return config.activation

    def forward(self, x: Tensor) -> Tensor:
        x, weight, bias = self.quantized(x)  # (..., in), (in, out), (out,)
        return F.linear(x, weight.T, bias)


def is_conv1d(module: nn.Module) -> bool:
    """Is it transformers' `Conv1D`? Known by its name and its shape, so that nobody has to have transformers."""
    if type(module).__name__ != "Conv1D":
        return False
    weight, bias = (module._parameters.get(name) for name in ("weight", "bias"))
    outputs = getattr(module, "nf", None)
    return all(
        tensor is not None and tensor.shape[-1] == outputs and tensor.dim() == dims
        for tensor, dims in ((weight, 2), (bias, 1))
    )


class QuantConv1d(QuantLayer, nn.Conv1d):
    """`nn.Conv1d`: (batch, in_channels, length) -> (batch, out_channels, length')."""

    def forward(self, input: Tensor) -> Tensor:
        x, weight, bias = self.quantized(input)  # (batch, in, length), (out, in / groups, kernel), (out,)
        return cast(Tensor, self._conv_forward(x, weight, bias))


class QuantConv2d(QuantLayer, nn.Conv2d):
    """`nn.Conv2d`: (batch, in_channels, height, width) -> (batch, out_channels, height', width')."""

    def forward(self, input: Tensor) -> Tensor:
        x, weight, bias = self.quantized(input)  # (batch, in, h, w), (out, in / groups, kh, kw), (out,)
        return cast(Tensor, self._conv_forward(x, weight, bias))


class QuantConv3d(QuantLayer, nn.Conv3d):
    """`nn.Conv3d`: (batch, in_channels, depth, height, width) -> (batch, out_channels, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        x, weight, bias = self.quantized(input)  # (batch, in, d, h, w), (out, in / groups, kd, kh, kw), (out,)
        return cast(Tensor, self._conv_forward(x, weight, bias))


class QuantConvTranspose1d(QuantLayer, nn.ConvTranspose1d):
    """`nn.ConvTranspose1d`, whose weight is (in_channels, out_channels / groups, kernel)."""

    axis = 1

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        extra = self._output_padding(input, output_size, self.stride, self.padding, self.kernel_size, 1, self.dilation)  # type: ignore[arg-type]
        x, weight, bias = self.quantized(input)
        return F.conv_transpose1d(x, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation)  # type: ignore[arg-type]


class QuantConvTranspose2d(QuantLayer, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, whose weight is (in_channels, out_channels / groups, kernel_h, kernel_w)."""

    axis = 1

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        extra = self._output_padding(input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation)  # type: ignore[arg-type]
        x, weight, bias = self.quantized(input)
        return F.conv_transpose2d(x, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation)  # type: ignore[arg-type]


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    """Name and layer of everything in the model that quantizes its weights."""
    for name, module in model.named_modules():
        if isinstance(module, QuantLayer):
            yield name, module


def require_prepared(model: nn.Module) -> None:
    require_module(model)
    if next(quantized_layers(model), None) is None:
        raise ValueError(f"{type(model).__name__} was not prepared: expected a model from prepare(model, config)")
