"""check_parity notices what is broken, at the level where it breaks."""

import pytest
import torch
from torch import nn

from export import ParityError, check_parity, export_onnx
from qat_core import prepare


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model = prepare(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)))
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    export_onnx(model, torch.randn(16, 2), path)
    return model, path


def test_a_faithful_file_is_ok(exported):
    model, path = exported
    report = check_parity(model, path, torch.randn(33, 2))
    report.raise_if_broken()
    assert report.ok
    assert {level.outputs for level in report.levels} == {99}


def test_another_model_is_not(exported):
    _, path = exported
    with torch.no_grad():
        moved = prepare(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)))
    report = check_parity(moved, path, torch.randn(33, 2))
    assert not report.ok
    with pytest.raises(ParityError, match=r"level .*: [0-9]+ of 99 outputs are off by more than"):
        report.raise_if_broken()


def test_an_output_that_is_nan_is_broken(exported):
    model, path = exported
    report = check_parity(model, path, torch.full((1, 2), float("nan")))
    assert not report.ok


def test_the_distances_are_those_of_the_outputs(exported):
    import numpy as np
    import onnxruntime as ort

    model, path = exported
    x = torch.randn(50, 2)
    answer = ort.InferenceSession(path).run(None, {"input": x.numpy()})[0]
    distance = np.abs(answer.astype(np.float64) - model(x).detach().double().numpy())
    level = check_parity(model, path, x).levels[-1]
    assert level.max_abs_diff == distance.max()
    assert level.mean_abs_diff == pytest.approx(distance.mean(), rel=1e-12)
