"""The audit tells a file that is really small from one that only looks so."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from app.lab.models import cnn, mlp
from export import audit, export_onnx
from export.__main__ import main
from qat_core import QATConfig, QuantSpec, convert
from qat_core.layers import quantized_layers
from tests.export.models import W4, W4A8, Residual, prepared

TENSOR = QATConfig(QuantSpec(granularity="per_tensor"))
GROUPS = QATConfig(QuantSpec(granularity="per_group", group_size=32))
wide = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
MODELS = {
    "MLP per tensor": (mlp(), TENSOR, (1,)),
    "MLP per channel": (mlp(), W4, (1,)),
    "MLP 2 bits": (mlp(), QATConfig(QuantSpec(bits=2)), (1,)),
    "MLP 8 bits": (mlp(), QATConfig(QuantSpec(bits=8)), (1,)),
    "MLP W4A8": (mlp(), W4A8, (1,)),
    "CNN": (cnn(), W4, (1, 8, 8)),
    "CNN W4A8": (cnn(), W4A8, (1, 8, 8)),
    "residual": (Residual(), W4, (8,)),
    "residual W4A8": (Residual(), W4A8, (8,)),
    "groups": (wide, GROUPS, (256,)),
}


def written(path, model, config, shape):
    torch.manual_seed(0)
    x = torch.randn(16, *shape)
    model = prepared(model, config, (x,))
    export_onnx(model, x, path)
    return convert(model)


def least_bytes(model):
    """What the tensors of a network with quantized weights take, counted from its modules."""
    total = 0
    for _, layer in quantized_layers(model):
        spec, weight, out = layer.weight_quantizer.spec, layer.weight, layer.bias.numel()
        scales = {"per_tensor": 1, "per_channel": out, "per_group": weight.numel() // spec.group_size}[spec.granularity]
        total += sum(-(-n * spec.storage_bits // 8) for n in (weight.numel(), scales)) + 4 * (scales + out)
        if layer.input_quantizer is not None:
            total += 4 + 1 + 4 * scales  # of the input; of the bias, which has no zero point
    return total


@pytest.mark.parametrize("name", MODELS)
def test_the_file_is_hardly_larger_than_its_tensors(tmp_path, name):
    path = tmp_path / "model.onnx"
    model = written(path, *MODELS[name])
    found = audit(path)
    shape_for_flatten = 16 if name.startswith("CNN") else 0
    assert found.minimum_bytes == least_bytes(model) + shape_for_flatten
    assert found.file_bytes == path.stat().st_size == sum(found.parts.values())
    assert found.file_bytes <= 1.03 * found.minimum_bytes + 5376  # graph and receipt
    assert found.float_matrices == found.float_copies == [row.name for row in found.rows if row.flag] == []


@pytest.fixture(scope="module")
def exported_once(tmp_path_factory):
    path = tmp_path_factory.mktemp("once") / "model.onnx"
    written(path, mlp(), W4, (1,))
    return path.read_bytes()


def change(path, edit):
    model = onnx.load(path)
    edit(model.graph)
    path.write_bytes(model.SerializeToString())


def floats(file):
    """What the codes of the widest weight stand for."""
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
    return stored["2.weight"].astype(np.float32) * stored["2.weight_scale"][:, None]


def as_initializer(array):
    return lambda graph: graph.initializer.append(numpy_helper.from_array(array, "hidden"))


def as_constant(array):
    node = helper.make_node("Constant", [], ["hidden"], value=numpy_helper.from_array(array))
    return lambda graph: graph.node.insert(0, node)


@pytest.mark.parametrize("put", [as_initializer, as_constant])
@pytest.mark.parametrize("arranged", [np.array, np.transpose, np.ravel], ids=lambda f: f.__name__)
def test_a_float_copy_of_a_weight_is_flagged_wherever_it_hides(file, capsys, put, arranged):
    before = audit(file)
    change(file, put(np.ascontiguousarray(arranged(floats(file)))))
    found = audit(file)
    assert found.float_copies == ["hidden"]
    assert found.minimum_bytes == before.minimum_bytes
    assert found.fp32_bytes == before.fp32_bytes
    assert main(["inspect", str(file)]) == 0
    assert "<- float copy of 2.weight" in capsys.readouterr().out


def test_a_weight_that_stayed_in_float_is_flagged(file):
    change(file, as_initializer(np.zeros((3, 4), np.float32)))
    found = audit(file)
    assert (found.float_matrices, found.float_copies) == (["hidden"], [])
    assert [row.flag for row in found.rows if row.name == "hidden"] == ["float weight"]


def test_bits_a_weight_count_scales_and_zero_points(tmp_path):
    path = tmp_path / "model.onnx"
    written(path, wide, GROUPS, (256,))
    bits = {row.name: row.bits_per_weight for row in audit(path).rows if row.bits_per_weight}
    assert bits == {"0.weight": 4 + 32 / 32 + 4 / 32, "2.weight": 4 + 32 / 32 + 4 / 32}


def test_scales_of_a_half_shifted_grid_are_no_float_weights(tmp_path):
    path = tmp_path / "model.onnx"
    written(path, mlp(), QATConfig(QuantSpec(bits=2, half_shift=True)), (1,))
    found = audit(path)
    assert found.float_matrices == []
    assert {row.role for row in found.rows if row.name.endswith(("_scale", "_unit"))} == {"scale"}
