"""Beyond one process, and beyond eager mode: torchrun, torch.compile, torch.export."""

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, convert, prepare, synchronize
from tests.qat_core import by_hand, train_ddp

ROOT = Path(__file__).parents[2]
SCALES = ("minmax", "learned")
CONFIGS = {
    "minmax": QATConfig(QuantSpec(granularity="per_tensor")),
    "learned": QATConfig(QuantSpec(scale="learned")),
    "activations": QATConfig(QuantSpec(), QuantSpec.activation(8)),
    "groups": QATConfig(QuantSpec(granularity="per_group", group_size=3, symmetric=False)),
}


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Scale rule -> what each of two processes under torchrun holds after each of the runs in train_ddp.py."""
    out = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.qat_core.train_ddp", str(out), *SCALES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return {scale: [json.loads((out / f"{scale}-{rank}.json").read_text()) for rank in (0, 1)] for scale in SCALES}


@pytest.mark.parametrize(
    "run", ["trained", "sharded", "synchronized", "joined", "compiled", "accumulated", "uneven", "dropped"]
)
@pytest.mark.parametrize("scale", SCALES)
def test_two_processes_end_with_the_same_bits(ranks, scale, run):
    """Calibration in parts, uneven inputs in join(), uneven accumulation in no_sync(), other layers in each; none waits
    for another."""
    first, second = (held[run] for held in ranks[scale])
    assert first == second


@pytest.mark.parametrize("scale", SCALES)
def test_ranges_are_those_of_all_processes(ranks, scale):
    state = ranks[scale][0]["trained"]
    lows = [float.fromhex(v[0]) for name, v in state.items() if name.endswith(".low")]
    assert lows
    assert all(map(math.isfinite, lows))
    if scale == "minmax":
        assert min(lows) < -4  # rank 0 alone draws from a normal distribution of width 1
        compared = ranks[scale][0]["synchronized"]
        highs = [float.fromhex(v[0]) for n, v in compared.items() if n.startswith("0") and n.endswith(".high")]
        assert highs == [pytest.approx(3, rel=0.01)]  # of batches of 1, 2, 3 and of 2, 3


@pytest.mark.parametrize("scale", SCALES)
def test_sharded_parameters_learn_as_whole_ones(ranks, scale):
    whole, sharded = (ranks[scale][0][run] for run in ("few_steps", "sharded"))
    assert whole.keys() == sharded.keys()
    for name, values in whole.items():
        numbers = [list(map(float.fromhex, state)) for state in (values, sharded[name])]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-4, abs=1e-5), name


def test_uneven_batches_learn_as_by_hand(ranks):
    """Gradients are the mean of both processes', and each range goes on from the widest of both."""
    model = make_model()
    layers = (model[0], model[2])
    ranges = by_hand.Range(), by_hand.Range()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step, rows in enumerate(train_ddp.ROWS):
        inputs = [train_ddp.batch(count, step, rank) for rank, count in enumerate(rows)]
        hidden = inputs
        for layer, seen in zip(layers, ranges, strict=True):
            of_each = [copy.copy(seen) for _ in hidden]
            for own, x in zip(of_each, hidden, strict=True):
                if len(x):
                    own.move(x)
            hidden = [
                by_hand.linear_of_codes(x, own, layer.weight, layer.bias)
                for x, own in zip(hidden, of_each, strict=True)
            ]
            seen.low, seen.high = min(own.low for own in of_each), max(own.high for own in of_each)
            seen.empty = False
            if layer is layers[0]:
                hidden = [x.relu() for x in hidden]
        optimizer.zero_grad()
        targets = (x.sin().sum(1, keepdim=True) for x in inputs)
        (sum((y - target).square().sum() for y, target in zip(hidden, targets, strict=True)) / 64).backward()
        optimizer.step()
    state = {name: list(map(float.fromhex, values)) for name, values in ranks["minmax"][0]["uneven"].items()}
    for name, parameter in model.named_parameters():
        assert state[name] == pytest.approx(parameter.flatten().tolist(), rel=1e-4, abs=1e-5), name
    for layer, seen in zip(("0", "2"), ranges, strict=True):
        found = [state[f"{layer}.input_quantizer.source.{end}"][0] for end in ("low", "high")]
        assert found == pytest.approx([seen.low, seen.high], rel=1e-4)


def test_synchronize_says_that_there_is_one_process_only():
    with pytest.raises(ValueError, match="expected several processes"):
        synchronize(prepare(make_model(), CONFIGS["activations"]))


def test_a_compiled_model_trains_to_the_same_losses():
    """One network with a layer of each kind: a C++ compiler is started for every kernel."""
    if not shutil.which("g++") and not shutil.which("c++"):
        pytest.skip("torch.compile needs a C++ compiler, and this machine has none")
    if "ATEN_CPU_CAPABILITY" in os.environ:
        pytest.skip("torch.compile builds no kernels for the processor that ATEN_CPU_CAPABILITY simulates")
    widths = [4, *[16] * (len(CONFIGS) - 1), 1]
    layers = [module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.ReLU())]
    overrides = {str(2 * i): config for i, config in enumerate(CONFIGS.values())}
    eager = prepare(nn.Sequential(*layers[:-1]), QATConfig(overrides=overrides))
    twin = copy.deepcopy(eager)
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    losses = []
    for model, forward in ((eager, eager), (twin, torch.compile(twin))):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses.append([])
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(forward(x), x.sin().sum(1, keepdim=True))
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("name", CONFIGS)
def test_torch_export_keeps_the_answers(name):
    prepared, x = prepare(make_model(), CONFIGS[name]), torch.randn(8, 4)
    prepared(x)
    for model in (prepared.eval(), convert(prepared)):
        exported = torch.export.export(model, (x,)).module()
        assert torch.equal(exported(x), model(x))
