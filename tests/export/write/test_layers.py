"""Every layer and every grid that can be prepared: the file answers as PyTorch, on batches it has not seen."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from export import audit, check_parity, export_onnx
from export.read.runtime import LEVELS, optimized, run, session
from qat_core import QATConfig, QuantSpec, convert, prepare
from tests.export.models import A8, GROUPS, W4, W4A8, Bag, Lookup, Tagger, Tied, export_and_compare, tensors


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 13), nn.ReLU(), nn.Linear(13, 9), nn.ReLU(), nn.Linear(9, 5), nn.Linear(5, 3))


GRIDS = {
    "0": {"granularity": "per_tensor"},
    "2": {"granularity": "per_group", "group_size": 4},  # 13 = 3 x 4 + 1: the last group is short
    "4": {"symmetric": False},
    "5": {"half_shift": True},
}
MORE_GRIDS = {
    "0": {"half_shift": True, "granularity": "per_tensor"},
    "2": {"half_shift": True, "granularity": "per_group", "group_size": 4},
    "4": {"symmetric": False, "granularity": "per_group", "group_size": 4},
    "5": {"granularity": "per_group", "group_size": 5},  # one group a row
}


@pytest.mark.parametrize("grids", [GRIDS, MORE_GRIDS])
@pytest.mark.parametrize("bits", [1.58, 2, 3, 4, 8])
def test_weights_in_onnxruntime_are_those_of_the_forward_pass_bit_for_bit(tmp_path, bits, grids):
    path, x = tmp_path / "model.onnx", (torch.randn(5, 7),)
    grids = {n: {k: v for k, v in g.items() if bits != 1.58 or k != "half_shift"} for n, g in grids.items()}
    config = QATConfig(overrides={name: QATConfig(QuantSpec(bits=bits, **grid)) for name, grid in grids.items()})
    model = export_and_compare(mlp(), config, x, path, (torch.randn(33, 7),))
    gemms = [node for node in onnx.load(path).graph.node if node.op_type == "Gemm"]
    found = tensors(path, [node.input[1] for node in gemms], x)
    converted = convert(model)
    for name, weight in zip(grids, found, strict=True):
        np.testing.assert_array_equal(weight, converted.get_submodule(name).weight.numpy())
    assert not [row.dtype for row in audit(path).rows if row.role == "codes" and row.dtype == "FLOAT"]


ACTIVATIONS = [
    *(QuantSpec.activation(bits) for bits in (2, 3, 4, 8)),
    *(QuantSpec.activation(bits, symmetric=True) for bits in (1.58, 4, 8)),
    QuantSpec.activation(4, symmetric=True, half_shift=True),
    QuantSpec(bits=8, dynamic=True),
    QuantSpec(bits=8, dynamic=True, granularity="per_group", group_size=4),
    QuantSpec(bits=8, dynamic=True, granularity="per_group", group_size=1),  # no group is short
]


@pytest.mark.parametrize("spec", ACTIVATIONS, ids=str)
def test_activations_are_rounded_as_in_the_forward_pass(tmp_path, spec):
    x = (torch.randn(33, 7),)
    model = nn.Sequential(nn.Linear(7, 13), nn.ReLU(), nn.Linear(13, 5))
    export_and_compare(model, QATConfig(activation=spec), x, tmp_path / "model.onnx", (2 * torch.randn(257, 7),))


@pytest.mark.parametrize("before", [nn.ReLU(), nn.ReLU6(), nn.Tanh()], ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
def test_four_bit_codes_are_narrow_only_where_onnxruntime_gets_them_right(tmp_path, before, symmetric):
    model = nn.Sequential(nn.Linear(4, 8), before, nn.Linear(8, 3))
    path, x = tmp_path / "model.onnx", (torch.randn(65, 4),)
    config = QATConfig(activation=QuantSpec.activation(4, symmetric=symmetric))
    export_and_compare(model, config, x, path, (torch.randn(65, 4),))
    stored = {row.name: row.dtype for row in audit(path).rows}
    narrow = isinstance(before, nn.Tanh) or (isinstance(before, nn.ReLU) and not symmetric)
    assert stored["2.input_zero_point"] == ("UINT4" if narrow else "UINT8")


CONVOLUTIONS = {
    "1d": (nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 3, groups=2)), (3, 20)),
    "2d": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(288, 4)),
        (3, 10, 10),
    ),
    "3d": (nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), nn.Conv3d(4, 3, 1)), (2, 6, 6, 6)),
    "transposed 1d": (nn.Sequential(nn.ConvTranspose1d(3, 8, 3, 2), nn.ReLU(), nn.ConvTranspose1d(8, 4, 3)), (3, 9)),
    "transposed 2d": (
        nn.Sequential(nn.ConvTranspose2d(4, 8, 3, 2, groups=2), nn.ReLU(), nn.ConvTranspose2d(8, 4, 3)),
        (4, 5, 5),
    ),
}


@pytest.mark.parametrize("config", [W4A8, GROUPS], ids=["W4A8", "groups"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(tmp_path, kind, config):
    model, shape = CONVOLUTIONS[kind]
    torch.manual_seed(0)
    export_and_compare(model, config, (torch.randn(5, *shape),), tmp_path / "model.onnx", (torch.randn(3, *shape),))


WORDS, OTHER_WORDS = torch.randint(0, 10, (5, 7)), torch.randint(0, 10, (3, 11))


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (Tagger(), W4),
        (Tagger(bidirectional=True, num_layers=2), GROUPS),
        (Tagger(nn.GRU), W4A8),
        (Tagger(nn.GRU, bidirectional=True, num_layers=2, bias=False), W4),
        (Bag("sum"), W4),
        (Bag("mean"), W4A8),
        (Bag("max"), GROUPS),
        (Tied(), W4A8),
    ],
    ids=lambda value: type(value).__name__,
)
def test_words_of_any_number(tmp_path, model, config):
    export_and_compare(model, config, (WORDS,), tmp_path / "model.onnx", (OTHER_WORDS,))


@pytest.mark.parametrize("config", [W4, W4A8], ids=["W4", "W4A8"])
def test_attention_with_several_inputs_and_outputs(tmp_path, config):
    torch.manual_seed(0)
    inputs = torch.randn(5, 6, 8), torch.randn(5, 4, 8)
    others = torch.randn(3, 2, 8), torch.randn(3, 9, 8)
    export_and_compare(Lookup(), config, inputs, tmp_path / "model.onnx", others)
    outputs = onnx.load(tmp_path / "model.onnx").graph.output
    assert [output.name for output in outputs] == ["output_0", "output_1"]


def test_a_transformer_layer_takes_sequences_of_any_length(tmp_path):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    export_and_compare(layer, W4, (torch.randn(5, 6, 8),), tmp_path / "model.onnx", (torch.randn(2, 9, 8),))


def test_tied_weights_are_stored_once(tmp_path):
    path = tmp_path / "model.onnx"
    export_and_compare(Tied(), W4, (WORDS,), path, (OTHER_WORDS,))
    (codes,) = (row for row in audit(path).rows if row.role == "codes")
    assert (codes.name, codes.shape, codes.dtype) == ("words.weight", (10, 8), "INT4")
    readers = [node for node in onnx.load(path).graph.node if "words.weight" in node.input]
    assert {node.op_type for node in readers} == {"DequantizeLinear"}


def test_every_dequantization_has_a_zero_point_but_those_of_int32_biases(tmp_path):
    path = tmp_path / "model.onnx"
    export_and_compare(mlp(), W4A8, (torch.randn(9, 7),), path, (torch.randn(9, 7),))
    graph = onnx.load(path).graph
    stored = {t.name: t for t in graph.initializer}
    dequantized = [node.input for node in graph.node if node.op_type == "DequantizeLinear"]
    biases = {f"{n}.bias" for n in (0, 2, 4, 5)}
    assert len(dequantized) == 12  # inputs, weights and biases of four layers
    assert {names[0] for names in dequantized if len(names) == 2} == biases
    assert all(names[2] in stored for names in dequantized if names[0] not in biases)
    assert {stored[name].data_type for name in biases} == {TensorProto.INT32}


@pytest.mark.parametrize("storage", [None, "int8"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_zero_point_of_biases_would_change_no_kernel_and_no_bit(tmp_path, bits, storage):
    path, x = tmp_path / "m.onnx", torch.randn(8, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2), nn.Flatten(), nn.Linear(196, 5))
    export_and_compare(model, QATConfig(QuantSpec(bits=bits), A8), (x,), path, (x,), storage=storage)
    with_zeros = onnx.load(path)
    for node in with_zeros.graph.node:
        if node.op_type == "DequantizeLinear" and len(node.input) == 2:
            scale = next(t for t in with_zeros.graph.initializer if t.name == node.input[1])
            zeros = np.zeros(scale.dims, np.int32)
            with_zeros.graph.initializer.append(onnx.numpy_helper.from_array(zeros, f"{node.input[0]}_zero_point"))
            node.input.append(f"{node.input[0]}_zero_point")
    files = (path, with_zeros.SerializeToString())
    without, beside = (sorted(node.op_type for node in optimized(file).graph.node) for file in files)
    assert without == beside
    for level in LEVELS:
        (y,), (other,) = (run(session(file, level), [x.numpy()]) for file in files)
        assert np.array_equal(y, other)


@pytest.mark.parametrize("group_size", [3, 7, 32])
@pytest.mark.parametrize("scale", ["minmax", "learned"])
def test_groups_with_quantized_activations_and_biases(tmp_path, group_size, scale):
    """Also where a layer has a single group a row: its bias stays in float, and onnxruntime has to leave it there."""
    spec = QuantSpec(granularity="per_group", group_size=group_size, scale=scale, power_of_two=True)
    config = QATConfig(spec, QuantSpec.activation(power_of_two=True))
    model = nn.Sequential(nn.Linear(7, 13), nn.ReLU(), nn.Linear(13, 5))
    nn.init.normal_(model[0].bias)
    export_and_compare(model, config, (torch.randn(64, 7),), tmp_path / "m.onnx", (torch.randn(300, 7),))


def test_one_row_is_enough_of_an_example(tmp_path):
    export_and_compare(mlp(), QATConfig(activation=A8), (torch.randn(1, 7),), tmp_path / "m.onnx", (torch.randn(4, 7),))


@pytest.mark.parametrize("causal", [None, True])
def test_a_stack_with_a_mask_takes_sequences_of_any_length(tmp_path, causal):
    """Of a mask alone torch asks, number by number, whether it is causal; no graph can."""
    layers = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, dropout=0)
    model = prepare(nn.TransformerDecoder(layers, 1)).eval()

    def given(words):
        mask = nn.Transformer.generate_square_subsequent_mask(words)
        return {"tgt": torch.randn(2, words, 8), "memory": torch.randn(2, 7, 8), "tgt_mask": mask}

    export_onnx(model, given(5) | {"tgt_is_causal": causal}, tmp_path / "model.onnx")
    check_parity(model, tmp_path / "model.onnx", given(6)).raise_if_broken()


FLATTENED = {(1, -1): 120, (0, 2): 6, (0, 1): 6, (-3, -2): 6, (2, 3): 30, (3, 3): 6, (0, -1): None}


@pytest.mark.parametrize("axes", FLATTENED, ids=str)
def test_flattened_axes_of_any_size(tmp_path, axes):
    class Flattened(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Linear(FLATTENED[axes] or 6, 2)

        def forward(self, x):
            y = self.first(x).flatten(*axes)
            return self.last(y if FLATTENED[axes] else y.unflatten(0, (-1, 6)))

    example, other = torch.randn(2, 3, 5, 6), torch.randn(3, 3, 5, 6)
    model = export_and_compare(Flattened(), W4, (example,), tmp_path / "m.onnx", (other,))
    if axes == (1, -1):
        check_parity(model, tmp_path / "m.onnx", (example[:0],)).raise_if_broken()
