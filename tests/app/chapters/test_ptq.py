"""Chapter "ptq": sixteen roundings of the visitor's own network."""

import json

import pytest
import torch

from app.chapters.ptq.chapter import BITS, GRIDS, crush_network
from app.lab.fit import Experiment, Settings
from app.runs.progress import Progress

DEFAULTS = (4, "per_tensor", 0.1, 0)


@pytest.fixture(scope="module")
def trained() -> Progress:
    *_, progress = Progress.start(Settings()).advance(until=300)
    return progress


def test_every_rounding_is_that_of_the_network_on_the_page(trained: Progress) -> None:
    found = json.loads(crush_network(trained, *DEFAULTS), parse_constant=pytest.fail)
    assert (found["step"], len(found["cells"])) == (300, len(BITS) * len(GRIDS))
    cell = {(c["bits"], c["granularity"], c["scale"]): c for c in found["cells"]}

    # by hand, one scale for each layer: the largest weight is code 7
    experiment = Experiment.restore(trained.snapshot, "cpu")
    model = experiment.models["fp32"]
    with torch.no_grad():
        for layer in model[::2]:
            scale = layer.weight.abs().max() / 7
            layer.weight.copy_((layer.weight / scale).round() * scale)
        zeros = (model[2].weight == 0).float().mean().item()
        curve = model(experiment.task.data.grid).flatten()
    naive = cell[4, "per_tensor", "minmax"]
    assert torch.allclose(torch.tensor(naive["curve"]), curve, atol=1e-3)
    assert naive["zeros"] == pytest.approx(zeros, abs=1e-4)
    assert naive["error"] == pytest.approx(trained.record.mse_clean["ptq"], rel=1e-3)
    assert f"With 4 bits one step of the grid is {scale_of(trained, 7):.2g};" in naive["words"]
    assert found["error"] == pytest.approx(trained.record.mse_clean["fp32"], rel=1e-3)
    assert cell[8, "per_channel", "minmax"]["error"] < naive["error"] / 5


def scale_of(progress: Progress, largest_code: int) -> float:
    weight = progress.snapshot["models"]["fp32"]["2.weight"]
    return weight.abs().max().item() / largest_code


def test_rounding_leaves_the_network_as_it_was(trained: Progress) -> None:
    assert crush_network(trained, *DEFAULTS) == crush_network(trained, *DEFAULTS)


def test_a_bad_setting_rounds_nothing_and_says_so(trained: Progress) -> None:
    assert (
        "Nothing was rounded: seed=-1; expected"
        in json.loads(crush_network(trained, 4, "per_tensor", 0.1, -1))["problem"]
    )
