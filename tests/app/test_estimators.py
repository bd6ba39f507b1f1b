"""Plain rounding really teaches the weights nothing, what else learns is counted, and the slice is the real loss."""

import copy

import pytest
import torch
from torch.nn import functional as F

from app.lab import estimators as lab
from app.lab.estimators import FREE, RULES, Estimators, plain_quantize, slice_along, straight_through
from app.lab.fit import TrainingDiverged
from qat_core.affine import dequantize, quantize
from qat_core.layers import quantized_layers
from qat_core.observer import Fixed


def test_the_three_rules_start_from_the_same_network() -> None:
    models = Estimators().models
    for name, value in models["round"].named_parameters():
        for other in models.values():
            assert torch.equal(value, dict(other.named_parameters())[name])
    x = Estimators().data.x
    assert torch.equal(models["round"](x), models["ste"](x))
    assert not torch.equal(models["round"](x), models["none"](x))


def test_plain_rounding_is_the_forward_pass_of_the_library() -> None:
    x, scale = torch.randn(64, 64), torch.tensor(0.3)
    expected = dequantize(quantize(x, scale, None, -8, 7), scale, None)
    assert torch.equal(plain_quantize(x, scale, -8, 7), expected)
    assert torch.equal(straight_through(x, scale, -8, 7), expected)


def test_autograd_finds_no_slope_in_plain_rounding() -> None:
    x = torch.randn(1000, requires_grad=True)
    plain_quantize(x, torch.tensor(0.1), -8, 7).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("free", FREE)
def test_through_plain_rounding_no_weight_ever_moves(free: str) -> None:
    estimators = Estimators(free)
    first = copy.deepcopy(estimators.models["round"].state_dict())
    start = estimators.record()["round"]
    *_, last = estimators.run(until=100)
    weights = last["round"].still["weights"]
    assert (weights.count, weights.zero, weights.moved) == (288, 288, 0)
    for name, value in estimators.models["round"].state_dict().items():
        if name.endswith("weight"):
            assert torch.equal(value, first[name])
    assert last["ste"].still["weights"].moved > 150
    assert last["ste"].loss < 0.3 * start.loss
    if free == "weights":
        assert last["round"].loss == start.loss
        assert last["round"].curve == start.curve
        assert last["round"].still["biases"].moved == 0
    else:
        assert last["round"].still["biases"].moved > 20
        assert last["ste"].loss < last["round"].loss < start.loss
    scales = last["round"].still["scales"]
    assert (scales.count, scales.moved) == ((3, 3) if free == "scales" else (0, 0))


def test_a_pause_changes_nothing() -> None:
    whole, first = Estimators("scales"), Estimators("scales")
    *_, expected = whole.run(until=30)
    list(first.run(until=20))
    resumed = Estimators.restore(first.snapshot())
    *_, record = resumed.run(until=30)
    for rule in RULES:
        assert record[rule].loss == expected[rule].loss
        assert torch.equal(record[rule].gradient, expected[rule].gradient)
        assert record[rule].still == expected[rule].still


def test_the_gradient_is_that_of_the_coming_step() -> None:
    estimators = Estimators()
    record = estimators.record()["ste"]
    model = estimators.models["ste"]
    loss = F.mse_loss(model(estimators.data.x), estimators.data.y)
    (expected,) = torch.autograd.grad(loss, dict(model.named_parameters())["2.weight"])
    assert record.loss == loss.item()
    assert torch.equal(record.gradient, expected)


# --- the loss along one weight --------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> Estimators:
    estimators = Estimators("biases")
    list(estimators.run(until=20))
    return estimators


@pytest.mark.parametrize("cell", [(None, None), (0, 0), (15, 3)])
def test_the_slice_is_the_loss_of_the_network_moved_there(
    trained: Estimators, cell: tuple[int | None, int | None]
) -> None:
    cut = slice_along(trained, *cell)
    model = copy.deepcopy(trained.models["round"])
    layer = dict(quantized_layers(model))["2"]
    scale = layer.weight_quantizer.source.qparams(layer.weight)[0].clone()
    layer.weight_quantizer.source = Fixed(scale, None)
    assert cut.weight == layer.weight[cut.row, cut.col].item()
    for i in (0, 40, 80, 120, 160):
        with torch.no_grad():
            layer.weight[cut.row, cut.col] = cut.at[i]
            loss = F.mse_loss(model(trained.data.x), trained.data.y)
        assert cut.rounded[i].item() == pytest.approx(loss.item(), rel=1e-5)


def test_a_difference_within_the_stair_is_zero_and_a_wide_one_sees_the_slope(trained: Estimators) -> None:
    cut = slice_along(trained)
    assert cut.true_slope == 0
    to_edge = 0.5 - abs(cut.weight / cut.scale - round(cut.weight / cut.scale))
    within = cut.widths < 0.99 * to_edge * cut.scale
    assert within.any()
    assert not cut.differences[within].any()
    wide = cut.differences[cut.widths > cut.scale]
    assert (wide * cut.ste_slope > 0).all()


def test_the_estimators_slope_is_that_of_the_smooth_curve_at_the_rounded_weight(trained: Estimators) -> None:
    cut = slice_along(trained)
    rounded_weight = round(cut.weight / cut.scale) * cut.scale
    near = int((cut.at - rounded_weight).abs().argmin())
    slope = (cut.smooth[near + 2] - cut.smooth[near - 2]) / (cut.at[near + 2] - cut.at[near - 2])
    assert slope.item() == pytest.approx(cut.ste_slope, rel=0.05)
    twin = Estimators("biases")
    twin.models["ste"].load_state_dict(trained.models["round"].state_dict())
    assert twin.record()["ste"].gradient[cut.row, cut.col].item() == pytest.approx(cut.ste_slope, rel=1e-5)


@pytest.mark.parametrize("cell", [(-1, 0), (0, 16), (99, 99)])
def test_a_weight_that_is_not_there_is_named(trained: Estimators, cell: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"row={cell[0]}, col={cell[1]}; expected whole numbers from 0 to 15"):
        slice_along(trained, *cell)


def test_what_may_learn_is_checked() -> None:
    with pytest.raises(ValueError, match="free='all'; expected one of weights, biases, scales"):
        Estimators("all")


def test_divergence_stops_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "LEARNING_RATE", 1e30)
    with pytest.raises(TrainingDiverged, match="training stopped at step"):
        list(Estimators().run())
