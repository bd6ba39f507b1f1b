"""Files beside float32: the twin computes what the network would without rounding, and each file is named."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from export import export_onnx, latency
from export.__main__ import main
from export.read.files import load
from export.read.graph import Graph
from export.read.latency import FOLD_WEIGHTS, as_float, example_inputs
from export.read.runtime import Setup, optimized, run, session
from qat_core import QATConfig, QuantSpec, convert
from tests.export.models import W4A8, prepared

DYNAMIC = QATConfig(activation=QuantSpec(bits=8, dynamic=True, granularity="per_group"))


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 3))


def exported(path, config=None, **options):
    model = prepared(small(), config, torch.randn(16, 40))
    export_onnx(model, torch.randn(16, 40), path, **options)
    return model


@pytest.mark.parametrize(
    ("config", "options"),
    [(None, {}), (None, {"flavor": "ort"}), (DYNAMIC, {"flavor": "ort"}), (W4A8, {"storage": "int8"})],
    ids=["qdq", "ort", "ort, dynamic", "int8"],
)
def test_the_twin_is_the_network_in_float32(tmp_path, config, options):
    path = tmp_path / "model.onnx"
    model = exported(path, config, **options)
    twin, setup = as_float(Graph.open(path)).SerializeToString(), Setup(config=FOLD_WEIGHTS)
    with_float_activations = nn.Sequential(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 3))
    with_float_activations.load_state_dict(convert(model).state_dict(), strict=False)
    x = torch.randn(9, 40)
    (answer,) = run(session(twin, setup=setup), [x.numpy()])
    np.testing.assert_allclose(answer, with_float_activations(x).detach().numpy(), rtol=0, atol=1e-5)
    operators = {node.op_type for node in optimized(twin, setup).graph.node}
    assert operators <= {"Gemm", "FusedGemm", "Relu"}


def test_files_are_timed_beside_float32(tmp_path, capsys):
    plain, quick = tmp_path / "qdq.onnx", tmp_path / "ort.onnx"
    exported(plain)
    exported(quick, flavor="ort")
    found = latency(plain, quick, batch=3, rounds=3)
    assert [row.name for row in found.rows] == ["float32", str(plain), str(quick)]
    assert all(row.milliseconds > 0 and row.low <= row.speed <= row.high for row in found.rows)
    assert found.rows[0].speed == 1
    assert [x.shape for x in example_inputs(load(plain), 3)] == [(3, 40)]
    assert [x.shape for x in example_inputs(load(plain), 100)] == [(100, 40)]
    assert main(["latency", str(plain), str(quick), "--batch", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["batch"], told["threads"], len(told["rows"])) == (2, 1, 3)
    assert main(["latency", str(plain)]) == 0
    assert "as fast as float32" in capsys.readouterr().out


def test_what_cannot_be_timed_gets_a_sentence(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    exported(path, dynamic_batch=False)
    with pytest.raises(ValueError, match=r"takes inputs of shapes \[\[16, 40\]\]; given \[\(2, 40\)\]"):
        latency(path, batch=2)
    assert main(["latency", str(path), "--batch", "0"]) == 2
    assert "1 files, batch=0" in capsys.readouterr().err
    assert main(["latency", str(tmp_path / "missing.onnx")]) == 1
    assert "missing.onnx" in capsys.readouterr().err
