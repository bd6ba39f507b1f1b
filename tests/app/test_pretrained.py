"""The network that the browser's chapters draw is the lab's own."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app.components.module import STATIC
from app.lab import pretrained
from app.lab.data import Sine
from app.lab.fit import Experiment, Settings
from app.lab.models import mlp


def decoded(network: dict[str, Any]) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(
            np.frombuffer(base64.b64decode(values["float32"]), "<f4").reshape(values["shape"]).copy()
        )
        for name, values in network["parameters"].items()
    }


def test_the_network_in_static_is_trained_as_the_page_trains() -> None:
    """It answers with the error that was written beside it. Training again gives another network on another
    processor, since 2,000 steps multiply the last bit of a sum, so that is not what is compared."""
    network = json.loads((STATIC / "data" / "pretrained.json").read_text(encoding="utf-8"))
    model = mlp()
    model.load_state_dict(decoded(network))
    data = Sine.sample()
    with torch.no_grad():
        error = nn.functional.mse_loss(model(data.x), data.clean).item()
    assert error == pytest.approx(network["mse_clean"], rel=1e-3)
    assert error < 0.002


def test_the_command_writes_the_fp32_network_of_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(steps=3, seed=5)
    monkeypatch.setattr(pretrained, "Settings", lambda: settings)
    path = tmp_path / "pretrained.json"
    assert pretrained.main([str(path)]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["pretrained.json"]
    network = json.loads(path.read_text(encoding="utf-8"))
    experiment = Experiment(settings, "cpu")
    *_, record = experiment.run()
    assert network["mse_clean"] == record.mse_clean["fp32"]
    for name, values in decoded(network).items():
        assert torch.equal(values, experiment.models["fp32"].state_dict()[name])


def test_the_command_answers_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrained.main([]) == 2
    assert "expected one argument" in capsys.readouterr().err
    nowhere = tmp_path / "not" / "there.json"
    assert pretrained.main([str(nowhere)]) == 2
    assert f"cannot write {nowhere}" in capsys.readouterr().err
