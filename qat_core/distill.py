"""Heal a prepared model without labels: its answers are pulled towards those of the float model.

Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; Mishra and Marr 2018, "Apprentice: Using
Knowledge Distillation Techniques To Improve Low-Precision Network Accuracy".
"""

import copy
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qat_core.batches import call, check_batches, in_evaluation
from qat_core.fake_quant import FakeQuantize
from qat_core.layers import quantized_layers, require_prepared

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Distillation:
    """What came of it.

    Attributes:
        ptq_loss: on the held-out batches, before the first step.
        loss: there in the end, that of the best state seen, which is what the student holds.
        steps: how many were taken.
        losses: step -> loss on the held-out batches.
        state: for `distill(..., resume=state)`, with more patience perhaps.
    """

    ptq_loss: float
    loss: float
    steps: int
    losses: dict[int, float]
    state: dict[str, Any] = field(repr=False)

    @property
    def won_back(self) -> float:
        """The share of the loss of rounding alone that training has taken away again."""
        return 1 - self.loss / self.ptq_loss if self.ptq_loss else 0.0


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error, as a share of the teacher's own mean square."""
    return (student - teacher).square().mean() / teacher.square().mean().clamp(min=1e-12)


def distill(
    student: nn.Module,
    teacher: nn.Module,
    batches: Iterable[Any],
    *,
    steps: int = 500,
    lr: float = 1e-4,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    loss: Loss = relative_error,
    layers: bool | Sequence[str] = False,
    held_out: Sequence[Any] | None = None,
    every: int = 50,
    patience: int = 5,
    resume: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], object] | None = None,
    progress: bool = True,
) -> Distillation:
    """Train a prepared model to answer as its float twin does. No labels are asked for.

    Dropout is off and the statistics of norms stay as they are: both models answer as in evaluation, and only the
    ranges of activations move.

    Args:
        student: prepared, and calibrated where activations are quantized; trained in place.
        teacher: the float model; left alone.
        batches: as `calibrate` takes them, begun anew when they end. To resume, they have to come in the same order.
        steps: of the optimizer, one for each batch.
        lr: of Adam at the first step; it falls to 0 along half a cosine.
        optimizer: makes another one from the parameters that learn; its rates fall likewise.
        loss: of one tensor of the student's answer and the teacher's; averaged over all floating-point ones.
        layers: names of modules whose outputs are compared as well, or True for all quantized layers.
        held_out: batches that measure and decide when to stop; None measures on the first eight of `batches`.
        every: steps between two measurements.
        patience: measurements without a better loss after which it stops.
        resume: a state that `keep` was given, or `Distillation.state`, to go on as if there had been no interruption;
            all other arguments are those of then.
        keep: called with the state at each measurement, to save it.
        progress: show a bar where stderr is a terminal.

    Raises:
        ValueError: the student was not prepared, the teacher was or shares its parameters, there is no batch, a name
            is of no module, the answers have no floating-point tensor in common, or the loss is not finite.
    """
    names = [name for name, _ in quantized_layers(student)] if layers is True else list(layers or ())
    _check(student, teacher, names, steps=steps, every=every, patience=patience)
    check_batches(batches)
    measured = list(itertools.islice(batches, 8)) if held_out is None else list(held_out)
    if not measured:
        raise ValueError("distill was given no batch; expected at least one")
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    adam = torch.optim.Adam(parameters, lr) if optimizer is None else optimizer(parameters)
    rates = [group["lr"] for group in adam.param_groups]
    with in_evaluation(student, teacher):

        def error(batch: Any) -> Tensor:
            with torch.no_grad():
                expected = _answers(teacher, batch, names)
            return _compared(_answers(student, batch, names), expected, loss)

        def measure() -> float:
            _let_observe(student, False)
            with torch.no_grad():
                mean = sum(error(batch).item() for batch in measured) / len(measured)
            _let_observe(student, True)
            return mean

        if resume is None:
            state: dict[str, Any] = {"step": 0, "losses": {0: measure()}}
            state["best"] = (state["losses"][0], 0, copy.deepcopy(student.state_dict()))
        else:
            state = copy.deepcopy(dict(resume))
            student.load_state_dict(state["student"])
            adam.load_state_dict(state["optimizer"])
            _let_observe(student, True)
        losses: dict[int, float] = state["losses"]
        coming = itertools.islice(_endless(batches), state["step"], None)
        for step in range(state["step"], steps):
            if sum(at > state["best"][1] for at in losses) >= patience:
                break
            for group, rate in zip(adam.param_groups, rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            adam.zero_grad()
            value = error(next(coming))
            if not math.isfinite(value.item()):
                raise ValueError(f"the loss is {value.item()} at step {step}; expected a finite number")
            value.backward()  # type: ignore[no-untyped-call]
            adam.step()
            state["step"] = step + 1
            if (step + 1) % every == 0 or step + 1 == steps:
                losses[step + 1] = measure()
                if losses[step + 1] < state["best"][0]:
                    state["best"] = (losses[step + 1], step + 1, copy.deepcopy(student.state_dict()))
                state |= {"student": student.state_dict(), "optimizer": adam.state_dict()}
                if keep is not None:
                    keep(copy.deepcopy(state))
            _show(step + 1, steps, losses, progress)
        state = copy.deepcopy(state)
        student.load_state_dict(state["best"][2])
    return Distillation(losses[0], state["best"][0], state["step"], losses, state)


def _check(student: nn.Module, teacher: nn.Module, names: Sequence[str], **counts: int) -> None:
    require_prepared(student)
    if any(True for _ in quantized_layers(teacher)):
        raise ValueError("the teacher is prepared; expected the float model")
    if not set(student.parameters()).isdisjoint(teacher.parameters()):
        raise ValueError("the student shares parameters with the teacher; expected prepare(teacher, config), a copy")
    for model, role in ((student, "student"), (teacher, "teacher")):
        known = dict(model.named_modules())
        for name in names:
            if name not in known:
                raise ValueError(f"layers has {name!r}, which the {role} has not; expected names of its modules")
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{name}={count!r}; expected a whole number of at least 1")


def _answers(model: nn.Module, batch: Any, names: Sequence[str]) -> list[Tensor]:
    """Every floating-point tensor in the model's answer and in those of the modules of these names."""
    kept: dict[str, list[Any]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, inputs, y, name=name: kept[name].append(y))
        for name in names
    ]
    try:
        answer = call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return list(_tensors([answer, *kept.values()]))


def _tensors(answer: Any) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        if answer.is_floating_point():
            yield answer
    elif isinstance(answer, Mapping):
        yield from _tensors(list(answer.values()))
    elif isinstance(answer, list | tuple):
        for part in answer:
            yield from _tensors(part)
    elif is_dataclass(answer):
        yield from _tensors(list(vars(answer).values()))


def _compared(answers: Sequence[Tensor], expected: Sequence[Tensor], loss: Loss) -> Tensor:
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (answers, expected)]
    if not answers or shapes[0] != shapes[1]:
        raise ValueError(f"the student answers floating-point tensors of shapes {shapes[0]}; expected {shapes[1]}")
    return torch.stack([loss(y, target) for y, target in zip(answers, expected, strict=True)]).mean()


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError("batches has ended; expected at least one, in something that can be begun anew")


def _let_observe(model: nn.Module, observing: bool) -> None:
    for module in model.modules():
        if isinstance(module, FakeQuantize):
            module.train(observing)


def _show(done: int, total: int, losses: Mapping[int, float], enabled: bool) -> None:
    if enabled and sys.stderr.isatty():
        bar = "#" * (30 * done // total)
        last = list(losses.values())[-1]
        end = "\n" if done == total else ""
        print(
            f"\rdistill [{bar:<30}] {done}/{total} loss {last:.3g} of {losses[0]:.3g}",
            end=end,
            file=sys.stderr,
            flush=True,
        )
