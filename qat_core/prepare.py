"""From a model to its quantized twin and on to what is exported: prepare, calibrate, convert."""

import copy
import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from qat_core.affine import Axis
from qat_core.agreement import agree_after_calls, is_of_activations
from qat_core.batches import call, check_batches, in_evaluation, require_module
from qat_core.fake_quant import FakeQuantize
from qat_core.fold import fold_batch_norm
from qat_core.layers import QuantLayer, quantized_layers, require_prepared
from qat_core.observer import MovingRange
from qat_core.plan import QUANTIZED, check_finite, plan, quantized_class
from qat_core.processes import tell_calls
from qat_core.reads import watch_first_call
from qat_core.source import StatefulSource
from qat_core.spec import QATConfig


def prepare(
    model: nn.Module, config: QATConfig | None = None, inplace: bool = False, *, fold: bool = False
) -> nn.Module:
    """The same architecture with every layer that can be quantized fake-quantized.

    Train the result as any model: its weights stay as they are and learn through the straight-through estimator,
    while each forward pass sees them on the grid. `plan(model, config)` says beforehand what will happen. Where few
    steps from scratch leave it behind float32, try `scale="learned"` and `Schedule.over(model, steps)`.

    Whoever reads `layer.weight` while the model is called gets it on its grid, and outside of any call the parameter. A
    method that is no forward, or a loss that is given the weight of a head, reads it outside: it should take
    `layer.weight_quantizer(layer.latent("weight"))`, which is on the grid everywhere. A warning says so where a loss in
    the making reads a weight; in evaluation and of a compiled model it does not.

    Args:
        model: any module.
        config: what to quantize and how; None is 4-bit weights, per channel.
        inplace: change `model` itself; otherwise it is left alone and a copy is returned.
        fold: first fold each BatchNorm into the convolution or linear layer before it.

    Raises:
        ValueError: nothing in the model would be quantized, an override matches no layer, a weight is not finite,
            tied weights are to be quantized in two ways, or the model cannot be copied.
    """
    require_module(model)
    if any(True for _ in quantized_layers(model)):
        raise ValueError("the model is prepared already; call prepare on the FP32 model")
    if not inplace:
        model = copied(model, "inplace=True")
    known = set(model.parameters())
    with _as_it_was_on_error(model):
        if fold:
            fold_batch_norm(model)
        _quantize(model, config)
    if inplace and (new := [name for name, parameter in model.named_parameters() if parameter not in known]):
        warnings.warn(
            f"prepare made {len(new)} parameters, {new[0]} first, which an optimizer made before it does not know: "
            "make the optimizer after prepare, or give it the new ones with optimizer.add_param_group",
            stacklevel=2,
        )
    return model


def _quantize(model: nn.Module, config: QATConfig | None) -> None:
    layers = plan(model, config).layers
    planned = {layer.name: layer.config for layer in layers if layer.config}
    if not planned:
        found = "; ".join(f"{layer.name or layer.kind}: {layer.reason}" for layer in layers)
        raise ValueError(
            f"nothing to quantize in {type(model).__name__}: expected one of "
            f"{', '.join(kind.__name__ for kind in QUANTIZED)}; found {found or 'no parameters at all'}"
        )
    twins: dict[nn.Module, QuantLayer] = {}
    for name, layer_config in planned.items():
        module = model.get_submodule(name)
        check_finite(name, module.named_parameters(recurse=False))
        twin = quantized_class(module)
        assert twin is not None
        assert layer_config is not None
        twins[module] = twin.from_float(module, layer_config, name)
    _share_quantizers(twins.values())
    for module, quantized in twins.items():  # in its own place: lists, hooks and closures may hold it as well
        module.__class__ = type(quantized)
        module.__dict__ = quantized.__dict__
    if isinstance(model, QuantLayer):
        agree_after_calls(model)
    for module in model.modules():
        if not isinstance(module, QuantLayer) and any(True for _ in quantized_layers(module)):
            tell_calls(module)
            watch_first_call(module)
            agree_after_calls(module)
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # its fused kernel would read the latent weights
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # of padded sequences, which only that kernel takes


@contextmanager
def _as_it_was_on_error(model: nn.Module) -> Iterator[None]:
    """No module is left half changed by what raises: each gets its class and its attributes back."""
    before = {
        module: (type(module), {key: value.copy() if isinstance(value, dict) else value for key, value in own.items()})
        for module, own in ((module, vars(module)) for module in model.modules())
    }
    try:
        yield
    except BaseException:
        for module, (kind, attributes) in before.items():
            module.__class__, module.__dict__ = kind, attributes
        raise


def copied(model: nn.Module, otherwise: str = "", shared: Mapping[Tensor, Tensor] | None = None) -> nn.Module:
    """A deep copy, which has the values of `shared` in the place of its keys.

    Results of a call that the model has kept come without the way they were computed.

    Raises:
        ValueError: it cannot be copied; the message names what stands in the way and says what to do `otherwise`.
    """
    try:
        _check_forwards(model)
        new = {id(x): x.detach().clone() for module in model.modules() for x in _results(vars(module), set())}
        return copy.deepcopy(model, new | {id(old): own for old, own in (shared or {}).items()})
    except Exception as error:
        culprit = next(filter(None, map(_uncopyable, *zip(*model.named_modules(), strict=True))), "")
        expected = "a model that can" + (f", or {otherwise}" if otherwise else "")
        raise ValueError(f"{type(model).__name__} cannot be copied: {culprit}{error}; expected {expected}") from error


def _check_forwards(model: nn.Module) -> None:
    """A function in place of a forward goes on to call the module that it holds, in copies as well."""
    modules = set(model.modules())
    for name, module in model.named_modules():
        forward = vars(module).get("forward")
        if isinstance(forward, FunctionType):
            held = (inspect.unwrap(forward), *(cell.cell_contents for cell in forward.__closure__ or ()))
            if any(getattr(function, "__self__", None) in modules for function in held):
                raise ValueError(f"the forward of {name or 'model'!r} is a function that holds the module itself")


def _results(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """The tensors inside a value that something computed, which nobody but autograd can make again."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
    elif id(value) not in seen and not isinstance(value, nn.Module | type | ModuleType | FunctionType):
        seen.add(id(value))
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple | set) else ()
        for part in (*parts, *getattr(value, "__dict__", {}).values()):
            yield from _results(part, seen)


def _uncopyable(name: str, module: nn.Module) -> str:
    """Which attribute of a module's own cannot be copied; empty when all can."""
    for attribute, value in vars(module).items():
        try:
            if attribute not in ("_modules", "_parameters", "_buffers", "get_parameter"):
                copy.deepcopy(value)
        except Exception:
            return f"its attribute {f'{name}.{attribute}'.lstrip('.')!r}: "
    return ""


def calibrate(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Show data to the activation quantizers of a prepared model: PTQ is prepare + calibrate without training.

    Args:
        model: prepared; changed in place and returned.
        batches: each a tensor, a tuple of arguments, a mapping of keyword arguments, or a tuple that ends in one. What
            the quantizers had seen before is forgotten.

    Raises:
        ValueError: the model was not prepared, there was no batch, a batch is not what it takes, or an input was not
            finite.
    """
    require_prepared(model)
    check_batches(batches)
    ranges = [module for module in model.modules() if isinstance(module, StatefulSource) and is_of_activations(module)]
    for observer in ranges:
        observer.restart()
        observer.calibrating = True
    seen = 0
    try:
        with torch.no_grad(), in_evaluation(model):
            for batch in batches:
                call(model, batch)
                seen += 1
    finally:
        for observer in ranges:
            observer.calibrating = False
    if not seen:
        raise ValueError("calibrate was given no batch; expected at least one")
    try:
        for name, layer in quantized_layers(model):
            _check_ranges(name, layer)
    except ValueError:
        for observer in ranges:
            observer.restart()
        raise
    return model


def convert(model: nn.Module, inplace: bool = False) -> nn.Module:
    """A copy whose weights lie on the grid and whose scales are constants: what is exported.

    Args:
        model: prepared.
        inplace: change `model` itself; otherwise it is left alone and a copy is returned.

    Raises:
        ValueError: the model was not prepared, its quantization is switched off, a weight, range or scale is not
            finite, or an activation quantizer has seen no data.
    """
    require_prepared(model)
    model, replaced = fix_scales(model if inplace else copied(model)), dict[Tensor, nn.Parameter]()
    for _, layer in quantized_layers(model):
        layer.put_on_grid(replaced)
    return model


def fix_scales(model: nn.Module) -> nn.Module:
    """What `convert` begins with, in place: scales become constants, and weights stay as they were trained.

    Raises:
        ValueError: its quantization is switched off, a weight, range or scale is not finite, or an activation quantizer
            has seen no data.
    """
    off = [name for name, module in model.named_modules() if isinstance(module, FakeQuantize) and not module.enabled]
    if off:
        raise ValueError(f"{len(off)} quantizers are switched off, {off[0]} first; expected all of them at work")
    for name, layer in quantized_layers(model.eval()):
        check_finite(name, layer.named_parameters(recurse=False))
        _check_ranges(name, layer)
        layer.fix_scales()
        layer.requires_grad_(False)
    for name, layer in quantized_layers(model):
        check_finite(name, layer.named_buffers())
    return model


def _check_ranges(name: str, layer: QuantLayer) -> None:
    for observer in layer.modules():
        if isinstance(observer, MovingRange) and observer.has_seen_data:
            check_finite(name, ((f"{end} end of the input", value) for end, value in observer.named_buffers()))


def _share_quantizers(twins: Iterable[QuantLayer]) -> None:
    """Tied weights have one quantizer: one scale, one set of codes."""
    first: dict[int, tuple[FakeQuantize, Axis]] = {}
    for twin in twins:
        for name, weight, quantizer in twin.quantized_weights():
            shared, axis = first.setdefault(id(weight), (quantizer, twin.axis))
            if (shared.spec, axis) != (quantizer.spec, twin.axis):
                raise ValueError(
                    f"a weight of shape {tuple(weight.shape)} is shared by layers with different specs, "
                    f"{shared.spec} and {quantizer.spec}; expected the same for both"
                )
            setattr(twin, f"{name}_quantizer", shared)
