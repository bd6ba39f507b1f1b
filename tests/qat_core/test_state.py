"""What quantizers remember is numbers: averaged, penalized, copied, loaded in part and cast as any tensor is."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qat_core import NoDataError, Oscillations, QATConfig, QuantSpec, Schedule, annealed_threshold, calibrate, prepare
from qat_core.layers import quantized_layers
from qat_core.lsq import LearnedScale
from qat_core.observer import MOMENTUM
from tests.export.models import Tied

NEW = ("grid", "seen", "begin", "fraction")  # what earlier versions had not
SCALES = ("minmax", "mse", "learned")


def config(scale, bits=4):
    return QATConfig(QuantSpec(bits, scale=scale), QuantSpec.activation(8, scale=scale))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))


def train(model, optimizer, steps, after=lambda: None):
    losses = []
    for step in steps:
        x = torch.randn(32, 4, generator=torch.Generator().manual_seed(step)) * (1 + step / 10)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), x.sin().sum(1, keepdim=True))
        loss.backward()
        optimizer.step()
        after()
        losses.append(loss.item())
    return losses


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-2)


@pytest.mark.parametrize("scale", SCALES)
def test_every_number_is_finite_before_any_data(scale):
    model = prepare(network(), config(scale))
    assert all(bool(t.isfinite().all()) for t in model.state_dict().values())
    first = [p.detach().clone() for p in model.parameters()]
    train(model, adam(model), range(3))
    assert all(bool((p - q).square().sum().isfinite()) for p, q in zip(model.parameters(), first, strict=True))


@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("scale", SCALES)
def test_an_averaged_model_answers_as_one_that_loads_its_tensors(scale, use_buffers):
    model = prepare(network(), config(scale))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=use_buffers)
    train(model, adam(model), range(12), after=lambda: average.update_parameters(model))
    fresh = prepare(network(), config(scale))
    fresh.load_state_dict(average.module.state_dict())
    x = torch.randn(64, 4)
    assert torch.equal(average.eval()(x), fresh.eval()(x))


def test_an_average_that_begins_empty_has_the_range_of_the_data_alone():
    """sum of w_i * range_i / sum of w_i over the steps with data, however small the weights are."""
    model = prepare(nn.Linear(2, 1), config("minmax"))
    average = copy.deepcopy(model)
    high, weighted, weights = None, 0.0, 0.0
    for step in range(6):
        batch = 1.0 + step
        model(torch.tensor([[-1.0, batch]]))
        high = batch if high is None else high + MOMENTUM * (batch - high)
        for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            kept.lerp_(new, 1e-3)
        weighted, weights = weighted + 1e-3 * (high - weighted), weights + 1e-3 * (1 - weights)
    source = average.eval().input_quantizer.source
    scale, _ = source.qparams(torch.empty(0))
    assert scale.item() == pytest.approx((weighted / weights + 1) / 255, rel=1e-3)
    average.train()(torch.tensor([[-1.0, 3.0]]))  # and goes on from it
    expected = weighted / weights + MOMENTUM * (3 - weighted / weights)
    assert source.high.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_an_average_that_begins_empty_has_the_learned_scale_of_the_data_alone(decay):
    """Scale and zero point of the data alone, up to the rounding of log2; a mean of two zero points is one again."""
    model = prepare(network(), config("learned")).requires_grad_(False)
    average = copy.deepcopy(model)
    for step in range(3):
        model(torch.randn(32, 4, generator=torch.Generator().manual_seed(step)))
        for own, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            own.lerp_(now, 1 - decay)
    x, source = torch.randn(8, 4), average[0].input_quantizer.source
    scale, zero_point = model[0].input_quantizer.source.qparams(x)
    torch.testing.assert_close(source.eval().qparams(x), (scale, zero_point), rtol=1e-5, atol=0)
    source.zero_point.add_(0.25)
    source.seen.fill_(1)
    torch.testing.assert_close(source.train().qparams(x)[1].frac(), torch.zeros(1), rtol=0, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_what_a_checkpoint_does_not_mention_stays(scale):
    model = prepare(network(), config(scale))
    train(model, adam(model), range(5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    head = nn.Linear(16, 1)
    model.load_state_dict({"2.weight": head.weight, "2.bias": head.bias}, strict=False)
    model.eval()(torch.randn(8, 4))
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"2.weight", "2.bias"} <= moved
    assert all(name.startswith(("2.weight", "2.bias")) for name in moved)  # its weight's scale is found anew
    fresh = prepare(head, QATConfig(QuantSpec(scale=scale)))
    assert torch.equal(model[2].weight_quantizer(head.weight), fresh.weight_quantizer(head.weight))


@pytest.mark.parametrize("scale", SCALES)
def test_parameters_without_buffers_leave_a_scale_to_begin_with_data(scale):
    model, fresh = (prepare(network(), config(scale)) for _ in range(2))
    x = torch.randn(16, 4)
    model(x)
    fresh.load_state_dict(dict(model.named_parameters()), strict=False)
    fresh(x)
    torch.testing.assert_close(fresh.eval()(x), model.eval()(x))


@pytest.mark.parametrize("scale", SCALES)
def test_the_state_of_before_the_first_batch_is_empty_again(scale):
    model = prepare(network(), config(scale))
    empty = copy.deepcopy(model.state_dict())
    x = torch.randn(16, 4)
    model(x)
    model.load_state_dict(empty)
    with pytest.raises(NoDataError):
        model.eval()(x)
    twin = prepare(network(), config(scale))
    assert torch.equal(model.train()(x), twin(x))


def whole_logarithms(model):
    """The checkpoint as earlier versions wrote it: a learned scale as one parameter, its logarithm."""
    state = model.state_dict()
    old = {name: tensor.clone() for name, tensor in state.items() if not name.endswith((*NEW, "log2_growth"))}
    for name, layer in quantized_layers(model):
        for kind, x in (("weight", layer.weight), ("input", torch.empty(0))):
            source = getattr(layer, f"{kind}_quantizer").source
            if isinstance(source, LearnedScale):
                scale = source.eval().qparams(x)[0] if source.seen.all() else torch.tensor(math.nan)
                old[f"{name}.{kind}_quantizer.source.log2_scale"] = scale.detach().log2()
    return old


@pytest.mark.parametrize("scale", ["minmax", "learned"])
def test_checkpoints_of_the_format_without_counters_load(scale):
    model = prepare(network(), config(scale))
    old_empty = whole_logarithms(model)
    for name in old_empty:
        if name.endswith((".low", ".high")):
            old_empty[name] = torch.tensor(math.inf if name.endswith("low") else -math.inf)
    train(model, adam(model), range(5))
    loaded = prepare(network(), config(scale))
    loaded.load_state_dict(whole_logarithms(model))
    x = torch.randn(16, 4)
    torch.testing.assert_close(loaded.eval()(x), model.eval()(x), rtol=1e-5, atol=1e-6)
    assert scale == "learned" or torch.equal(loaded(x), model(x))
    loaded.load_state_dict(old_empty)
    with pytest.raises(NoDataError):
        loaded(x)


def test_a_scale_that_has_learned_loads_from_its_logarithm_and_where_it_began():
    """A format between two versions."""
    model = prepare(network(), config("learned"))
    train(model, adam(model), range(5))
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("log2_growth")}
    old = kept | whole_logarithms(model)
    for name in list(old):
        if name.endswith("log2_scale"):
            old[name.replace("log2_scale", "begin")] = torch.full_like(old[name], 0.25)
            old[name] -= 0.25
            old[name.replace("log2_scale", "seen")] = torch.full_like(old[name], 2)
    loaded = prepare(network(), config("learned"))
    loaded.load_state_dict(old)
    x = torch.randn(16, 4)
    torch.testing.assert_close(loaded.eval()(x), model.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("save_at", [3, 5, 9, 15, 19])
@pytest.mark.parametrize("scale", SCALES)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(scale, save_at):
    def start():
        model = prepare(network(), config(scale, bits=3))
        return model, adam(model), Schedule(model, 5, 15), Oscillations(model, 0.05, freeze=True, momentum=0.2)

    def run(parts, steps):
        model, optimizer, schedule, oscillations = parts
        return train(model, optimizer, steps, after=lambda: (schedule.step(), oscillations.step()))

    whole = start()
    expected = run(whole, range(40))
    stopped = start()
    run(stopped, range(save_at))
    saved = io.BytesIO()
    torch.save([part.state_dict() for part in stopped], saved)
    resumed = start()
    resumed[0](torch.randn(3, 4))  # a batch to build the model with, as some loops do
    saved.seek(0)
    for part, state in zip(resumed, torch.load(saved), strict=True):
        part.load_state_dict(state)
    resumed[3].steps = save_at
    assert run(resumed, range(save_at, 40)) == expected[save_at:]
    for ours, theirs in zip(resumed[0].state_dict().values(), whole[0].state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert resumed[3].report() == whole[3].report()


@pytest.mark.parametrize("scale", SCALES)
def test_models_and_aids_survive_pickle_and_deepcopy(scale):
    model = prepare(network(), config(scale))
    train(model, adam(model), range(3))
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    twin = torch.load(saved, weights_only=False)
    assert train(twin, adam(twin), range(3, 9)) == train(model, adam(model), range(3, 9))
    aids = Schedule(model, 2), Oscillations(model), Oscillations(model, annealed_threshold(10))
    for aid in aids:
        pickle.loads(pickle.dumps(aid)).step()  # noqa: S301
        copy.deepcopy(aid).step()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", SCALES)
def test_ranges_and_scales_keep_their_bits_in_a_model_of_half_precision(scale, dtype):
    model = calibrate(prepare(network(), config(scale)), [torch.randn(64, 4)])
    half = copy.deepcopy(model).to(dtype)
    for name, tensor in model.state_dict().items():
        if "quantizer" in name:
            assert torch.equal(half.state_dict()[name], tensor), name
    assert half[0].weight.dtype == dtype
    assert half(torch.randn(3, 4, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("scale", ["minmax", "mse"])
def test_a_batch_that_is_not_finite_does_not_move_a_range(scale, value):
    model = prepare(nn.Linear(4, 1), config(scale))
    twin = copy.deepcopy(model)
    for step in range(20):
        x = torch.randn(16, 4)
        if step in (0, 7):
            x[3, 1] = value
            model(x)
        else:
            assert torch.equal(model(x), twin(x))
    ranges = [[end.clone() for end in m.input_quantizer.source.buffers(recurse=False)] for m in (model, twin)]
    assert all(torch.equal(a, b) for a, b in zip(*ranges, strict=True))


@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize("scale", SCALES)
def test_what_comes_from_the_meta_device_has_seen_nothing(scale, assign):
    """Filled with a checkpoint of FP32, it trains as the model that was prepared with those numbers."""
    with torch.device("meta"):
        model = prepare(network(), config(scale))
        assert model(torch.empty(3, 4)).shape == (3, 1)
    if not assign:
        model.to_empty(device="cpu")
    model.load_state_dict(network().state_dict(), strict=False, assign=assign)
    assert all(bool(t.isfinite().all()) for t in model.state_dict().values())
    twin = prepare(network(), config(scale))
    losses = [train(m, adam(m), range(3)) for m in (model, twin)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dropped", ["words", "head"])
def test_of_a_tied_weight_a_checkpoint_may_have_one_name(scale, dropped):
    """All keys that are not there are missing, as they are of a float model; no more, and nothing else is asked for."""
    words, model = torch.arange(10).reshape(5, 2), prepare(Tied(), config(scale))
    model(words)
    state = model.state_dict()
    gone = {key for key in state if key.startswith((f"{dropped}.weight", f"{dropped}.weight_quantizer."))}
    fresh = prepare(Tied(), config(scale))
    found = fresh.load_state_dict({key: state[key] for key in state.keys() - gone}, strict=False)
    assert (set(found.missing_keys), found.unexpected_keys) == (gone, [])
    assert torch.equal(fresh.eval()(words), model.eval()(words))
