"""The file: integer codes of the forward pass, no float copy, any batch, the same answers at all levels."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import export.qdq
from export import FileError, ParityError, audit, check_parity, export_onnx
from export.parity import output_range
from qat_core import QATConfig, QuantSpec, convert, prepare

GRANULARITIES = ["per_tensor", "per_channel"]


def lab_model(bits=4, granularity="per_tensor", seed=0):
    """1-64-64-1 with outputs of a sensible size, prepared."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    return prepare(model, QATConfig(QuantSpec(bits=bits, granularity=granularity)))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_onnxruntime_answers_as_torch_at_every_level(tmp_path, bits, granularity):
    model, path = lab_model(bits, granularity), tmp_path / "model.onnx"
    export_onnx(model, torch.linspace(-3, 3, 64).unsqueeze(1), path)
    x = torch.linspace(-4, 4, 1001).unsqueeze(1)  # another batch size than the example's
    report = check_parity(model, path, x)
    spread = output_range(model(x).detach().double().numpy())
    assert [level.level for level in report.levels] == ["disable_all", "basic", "extended", "all"]
    assert report.ok
    for level in report.levels:
        assert level.outputs == 1001
        assert level.max_abs_diff <= 1e-5 * spread


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_codes_in_the_file_are_those_of_the_forward_pass(tmp_path, bits, granularity):
    model, path = lab_model(bits, granularity), tmp_path / "model.onnx"
    export_onnx(model, torch.zeros(2, 1), path)
    stored = {t.name: t for t in onnx.load(path).graph.initializer}
    for index in (0, 2, 4):
        tensor, scale = stored[f"{index}.weight"], numpy_helper.to_array(stored[f"{index}.weight_scale"])
        assert tensor.data_type == (TensorProto.INT8 if bits == 8 else TensorProto.INT4)
        seen = model[index].weight_quantizer(model[index].weight).detach().numpy()  # what the matmul sees
        scale = scale.reshape(-1, 1) if scale.ndim else scale
        np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float32) * scale, seen)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_int4_file_has_no_float_matrix_and_is_small(tmp_path, granularity):
    path = tmp_path / "model.onnx"
    export_onnx(lab_model(4, granularity), torch.zeros(2, 1), path)
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


def test_a_model_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Linear was not prepared"):
        export_onnx(nn.Linear(1, 1), torch.zeros(1, 1), tmp_path / "model.onnx")


@pytest.mark.parametrize("arguments", [{"flavor": "tensorrt"}, {"opset_version": 13}])
def test_an_unknown_argument_is_refused_with_its_value(tmp_path, arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value!r} is not supported; expected"):
        export_onnx(lab_model(), torch.zeros(1, 1), tmp_path / "model.onnx", **arguments)


def test_a_path_that_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(FileError, match=r"cannot write .*No such file or directory"):
        export_onnx(lab_model(), torch.zeros(1, 1), tmp_path / "nowhere" / "model.onnx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=r"cannot write .*folder"):
        export_onnx(lab_model(), torch.zeros(1, 1), tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_codes_that_differ_from_the_forward_pass_stop_the_export(tmp_path, monkeypatch):
    store_codes = export.qdq._store_codes

    def store_one_wrong_code(program, specs):
        store_codes(program, specs)
        value = program.graph.initializers["2.weight"]
        codes = value.const_value.numpy().copy()
        codes[3, 5] = codes[3, 5] - 1 if codes[3, 5] > 0 else codes[3, 5] + 1
        value.const_value = type(value.const_value)(codes, dtype=value.dtype, name=value.name)

    monkeypatch.setattr(export.qdq, "_store_codes", store_one_wrong_code)
    with pytest.raises(ParityError, match="codes of layer '2'"):
        export_onnx(lab_model(), torch.zeros(2, 1), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
