"""The file: integer codes of the forward pass, no float copy, any batch, the same answers at all levels."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from export import audit, check, check_parity, export_onnx
from export.read.distance import output_range
from export.read.runtime import LEVELS, run, session
from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare
from tests.export.models import Around, TakesOutput, lab_model

GRANULARITIES = ["per_tensor", "per_channel"]


@pytest.fixture(scope="module", params=GRANULARITIES)
def granularity(request):
    return request.param


@pytest.fixture(scope="module", params=[2, 3, 4, 8])
def bits(request):
    return request.param


@pytest.fixture(scope="module")
def exported(tmp_path_factory, bits, granularity):
    """The lab's network and its file."""
    model, path = lab_model(bits, granularity), tmp_path_factory.mktemp("once") / "model.onnx"
    export_onnx(model, torch.linspace(-3, 3, 64).unsqueeze(1), path)
    return model, path


def test_onnxruntime_answers_as_torch_at_every_level(exported):
    model, path = exported
    x = torch.linspace(-4, 4, 1001).unsqueeze(1)  # another batch size than the example's
    report = check_parity(model, path, x)
    spread = output_range(model(x).detach().double().numpy())
    assert [level.level for level in report.levels] == ["disable_all", "basic", "extended", "all"]
    assert report.ok
    for level in report.levels:
        assert level.outputs == 1001
        assert level.max_abs_diff <= 1e-5 * spread


def test_the_codes_in_the_file_are_those_of_the_forward_pass(exported, bits):
    model, path = exported
    stored = {t.name: t for t in onnx.load(path).graph.initializer}
    for index in (0, 2, 4):
        tensor, scale = stored[f"{index}.weight"], numpy_helper.to_array(stored[f"{index}.weight_scale"])
        assert tensor.data_type == {2: TensorProto.INT2, 8: TensorProto.INT8}.get(bits, TensorProto.INT4)
        seen = model[index].weight_quantizer(model[index].weight).detach().numpy()  # what the matmul sees
        scale = scale.reshape(-1, 1) if scale.ndim else scale
        np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float32) * scale, seen)


@pytest.mark.parametrize("bits", [4], indirect=True)
def test_int4_file_has_no_float_matrix_and_is_small(exported):
    _, path = exported
    found = audit(path)
    assert found.float_matrices == []
    matrices = {row.name: (row.dtype, row.bytes) for row in found.rows if row.role == "codes"}
    assert matrices == {"0.weight": ("INT4", 32), "2.weight": ("INT4", 2048), "4.weight": ("INT4", 32)}
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    receipt = sum(len(p.key) + len(p.value) for p in model.metadata_props)
    assert found.file_bytes - receipt < 6000
    assert found.fp32_bytes == 4 * sum(p.numel() for p in lab_model().parameters())


def test_prepared_and_converted_models_give_the_same_file(tmp_path):
    model = lab_model()
    export_onnx(model, torch.zeros(2, 1), tmp_path / "prepared.onnx")
    export_onnx(convert(model), torch.zeros(2, 1), tmp_path / "converted.onnx")
    assert (tmp_path / "prepared.onnx").read_bytes() == (tmp_path / "converted.onnx").read_bytes()


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    model, x = lab_model(), torch.linspace(-1, 1, 9).unsqueeze(1)
    model.train()
    before, state = model(x), {k: v.clone() for k, v in model.state_dict().items()}
    export_onnx(model, x, tmp_path / "model.onnx")
    assert model.training
    assert torch.equal(model(x), before)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_a_static_batch_is_kept(tmp_path):
    export_onnx(lab_model(), torch.zeros(3, 1), tmp_path / "model.onnx", dynamic_batch=False)
    assert ort.InferenceSession(tmp_path / "model.onnx").get_inputs()[0].shape == [3, 1]


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (lambda y, x: {"y": y, "hidden": (y, x + 1)}, ["y", "hidden_0", "hidden_1"]),
        (lambda y, x: (y, None), ["output"]),
        (lambda y, x: (y, (y + 1, y + 2)), ["output_0", "output_1", "output_2"]),
        (lambda y, x: {"y": y, "x": x}, ["y", "x_out"]),
        (lambda y, x: {"y": y, "version": torch.tensor(3), "layer/Gemm": y + 1}, ["y", "version", "layer/Gemm"]),
    ],
)
def test_answers_are_outputs_by_their_keys(tmp_path, answer, names):
    model, path = prepare(Around(lambda layer, x: answer(layer(x), x))), tmp_path / "model.onnx"
    assert export_onnx(model, torch.randn(3, 4), path).ok
    session = ort.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == names
    assert [x.name for x in session.get_inputs()] == ["x"]


def test_an_answer_never_takes_the_name_of_an_input(tmp_path):
    path = tmp_path / "model.onnx"
    assert export_onnx(prepare(TakesOutput()), torch.randn(3, 4), path).ok
    assert [y.name for y in ort.InferenceSession(path).get_outputs()] == ["output_out"]


def test_names_of_ones_own_are_those_of_the_file_and_of_its_receipt(tmp_path):
    model, path = prepare(nn.Linear(4, 4)), tmp_path / "model.onnx"
    export_onnx(model, torch.randn(3, 5, 4), path, input_names=["my image"], output_names=["embedding"])
    session = ort.InferenceSession(path)
    assert [session.get_inputs()[0].name, session.get_outputs()[0].name] == ["my image", "embedding"]
    assert session.get_inputs()[0].shape == ["batch", "my_image_1", 4]
    assert check(path).ok
    for names, sentence in (
        ({"input_names": ["a", "b"]}, r"input_names=\['a', 'b'\]; expected 1, for input"),
        ({"output_names": ["input"]}, "two inputs or outputs are called 'input'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            export_onnx(model, torch.randn(3, 4), path, **names)


def test_a_model_for_one_size_of_batch_is_exported_for_that(tmp_path):
    model = Around(lambda layer, x: layer(x) + torch.arange(3.0)[:, None])
    assert export_onnx(prepare(model), torch.randn(3, 4), tmp_path / "model.onnx", dynamic_batch=False).ok


def test_a_model_that_writes_into_its_input_leaves_that_of_the_caller(tmp_path):
    model, x = prepare(Around(lambda layer, x: layer(x.mul_(2)))), torch.randn(3, 4)
    before = x.clone()
    assert export_onnx(model, x, tmp_path / "model.onnx").ok
    assert torch.equal(x, before)
    assert check_parity(model, tmp_path / "model.onnx", x).ok


@pytest.mark.parametrize(
    ("bits", "storage", "opset", "dtype", "written_opset"),
    [
        (2, None, None, TensorProto.INT2, 25),
        (1.58, None, None, TensorProto.INT2, 25),
        (2, None, 21, TensorProto.INT4, 21),
        (4, None, None, TensorProto.INT4, 21),
        (4, None, 25, TensorProto.INT4, 25),
        (4, "int8", None, TensorProto.INT8, 21),
        (2, "int8", None, TensorProto.INT8, 21),
    ],
)
def test_the_opset_is_the_lowest_that_stores_the_codes_narrowly(tmp_path, bits, storage, opset, dtype, written_opset):
    path = tmp_path / "model.onnx"
    export_onnx(lab_model(bits), torch.zeros(2, 1), path, storage=storage, opset_version=opset)
    model = onnx.load(path)
    assert {t.data_type for t in model.graph.initializer if t.name.endswith(".weight")} == {dtype}
    assert [entry.version for entry in model.opset_import] == [written_opset]
    assert model.ir_version == {21: 10, 25: 13}[written_opset]


def test_nodes_and_initializers_have_the_names_of_the_modules(tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(lab_model(), torch.zeros(2, 1), path)
    graph = onnx.load(path).graph
    parts = ("weight", "weight_scale", "weight_zero_point", "bias")
    assert {t.name for t in graph.initializer} == {f"{layer}.{part}" for layer in (0, 2, 4) for part in parts}
    expected = [name for n in (0, 2, 4) for name in (f"{n}.weight/DQ", f"{n}/Gemm")] + ["1/Relu", "3/Relu"]
    assert sorted(node.name for node in graph.node) == sorted(expected)


def test_no_name_is_the_exporters_own(tmp_path):
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2))
    export_onnx(prepare(model), torch.randn(4, 2, 9), tmp_path / "model.onnx")
    names = [node.name for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert [name for name in names if name.startswith("_")] == []


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(2, 8), (2, 2), (4, 4), (1.58, 4), (3, 3), (8, 4)])
def test_narrow_activations_behind_pooling_load_and_are_exact_with_power_of_two_scales(
    tmp_path, weight_bits, activation_bits
):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(6, 3),
    )
    config = QATConfig(
        QuantSpec(bits=weight_bits, power_of_two=True), QuantSpec.activation(activation_bits, power_of_two=True)
    )
    images = torch.randn(64, 1, 10, 10)
    prepared = calibrate(prepare(model, config), [images])
    export_onnx(prepared, images[:4], tmp_path / "model.onnx")
    report = check_parity(prepared, tmp_path / "model.onnx", images)
    assert [level.max_abs_diff for level in report.levels] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("limit", "bits", "symmetric", "exponent"),
    [
        (nn.ReLU(), 4, True, -32),
        (nn.ReLU6(), 8, True, -34),
        (nn.Identity(), 2, True, -32),
    ],
    ids=str,
)
def test_tiny_activations_keep_their_limits_at_every_level(tmp_path, limit, bits, symmetric, exponent):
    """onnxruntime drops a Clip that is within 2^-23 of the range of the codes behind it, whatever a step is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8, bias=False), limit, nn.Linear(8, 4, bias=False))
    with torch.no_grad():
        model[0].weight *= 2.0**exponent
    activation = QuantSpec.activation(bits, symmetric=symmetric, power_of_two=True)
    x = torch.randn(128, 8)
    prepared = calibrate(prepare(model, QATConfig(QuantSpec(power_of_two=True), activation)), [x])
    assert export_onnx(prepared, x[:4], tmp_path / "model.onnx").proof.proven
    report = check_parity(prepared, tmp_path / "model.onnx", 4 * x)
    assert [level.max_abs_diff for level in report.levels] == [0, 0, 0, 0]


def test_weights_are_unpacked_one_after_the_other(tmp_path):
    """Those of a row of layers would lie in memory in float at once."""
    network = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4)))
    export_onnx(prepare(network).eval(), torch.randn(2, 16), tmp_path / "model.onnx")
    for level in LEVELS:
        runtime = session(tmp_path / "model.onnx", level, profile=tmp_path / level)
        run(runtime, [np.ones((2, 16), np.float32)])
        events = json.loads(Path(runtime.end_profiling()).read_text())
        ran = [e["name"].removesuffix("_kernel_time") for e in events if e["name"].endswith("_kernel_time")]
        assert ran == [operator for index in range(4) for operator in (f"{index}.weight/DQ", f"{index}/Gemm")]


def test_a_layer_whose_input_is_dead_answers_zero_at_every_level(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False))
    with torch.no_grad():
        model[0].weight.abs_().neg_()
        model[0].bias.fill_(-1)
    prepared = prepare(model, QATConfig(QuantSpec(), QuantSpec.activation(4, symmetric=True, scale="learned")))
    images = torch.rand(16, 1, 8, 8)
    calibrate(prepared, [images])
    export_onnx(prepared, images[:4], tmp_path / "model.onnx")
    report = check_parity(prepared, tmp_path / "model.onnx", images)
    assert [level.max_abs_diff for level in report.levels] == [0, 0, 0, 0]
