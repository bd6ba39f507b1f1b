"""check_parity notices what is broken, at the level where it breaks, and tells it from rounding."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export import ParityError, Setup, check_parity, export_onnx
from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare

LEVELS = ["disable_all", "basic", "extended", "all"]
W4A8 = QATConfig(activation=QuantSpec.activation())
POWERS = QATConfig(QuantSpec(power_of_two=True), activation=QuantSpec.activation(power_of_two=True))


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = prepare(small())
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    export_onnx(model, torch.randn(16, 2), path)
    return model, path


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """W4A8."""
    x = torch.randn(64, 2)
    model = calibrate(prepare(small(), W4A8), [x])
    path = tmp_path_factory.mktemp("quantized") / "model.onnx"
    export_onnx(model, x, path)
    return model, path


def change(path, name, edit):
    """The file with one initializer edited, beside it."""
    model = onnx.load(path)
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor).copy()), name))
    changed = path.with_name("changed.onnx")
    onnx.save(model, changed)
    return changed


def test_a_faithful_file_is_ok(exported):
    model, path = exported
    report = check_parity(model, path, torch.randn(33, 2))
    report.raise_if_broken()
    assert report.ok
    assert report.outcome in ("exact", "rounding")
    assert [level.level for level in report.levels] == LEVELS
    assert {level.outputs for level in report.levels} == {99}


def test_another_model_is_not(exported):
    _, path = exported
    torch.manual_seed(1)
    moved = prepare(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)))
    report = check_parity(moved, path, torch.randn(33, 2))
    assert not report.ok
    assert report.outcome == "broken"
    with pytest.raises(ParityError, match=r"level .*: [0-9]+ of 99 outputs are off by .*; they part at '0/Gemm'"):
        report.raise_if_broken()


def test_an_output_that_is_nan_is_broken(exported):
    model, path = exported
    report = check_parity(model, path, torch.full((1, 2), float("nan")))
    assert not report.ok
    assert report.verdict.endswith("some of them NaN or infinite")


class Word(nn.Module):
    """Answers numbers around 1, and the id of a word around 10,000."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(2, 5)
        self.register_buffer("ids", torch.tensor([7, 30_000, 12, 9, 20_000]))

    def forward(self, x):
        scores = self.scores(x)
        return scores, self.ids[scores.argmax(-1)]


def test_an_output_of_large_numbers_hides_no_fault_in_one_of_small_numbers(tmp_path):
    model, x = prepare(Word()), torch.randn(33, 2)
    report = export_onnx(model, x, tmp_path / "model.onnx")
    scores = model(x)[0].detach().double().numpy()
    assert report.tolerances == [1e-5 * np.ptp([*scores.ravel(), 0.0]), 0.0]
    changed = change(tmp_path / "model.onnx", "scores.weight_scale", lambda scale: scale * np.float32(1.001))
    assert check_parity(model, changed, x).outcome == "broken"


class Timed(nn.Module):
    """A number for all, and rows."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(2, 5)

    def forward(self, time, x):
        return torch.relu(self.scores(x)) + time


def test_a_fault_behind_an_input_without_axes_is_found(tmp_path):
    model, inputs = prepare(Timed()), (torch.tensor(3.0), torch.randn(33, 2))
    report = export_onnx(model, inputs, tmp_path / "model.onnx")
    assert report.axes == {"time": (), "x": ("batch", 2)}
    changed = change(tmp_path / "model.onnx", "scores.weight_scale", lambda scale: scale * np.float32(1.001))
    assert check_parity(model, changed, inputs).outcome == "broken"


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(2, 5)

    def forward(self, x):
        return self.scores(x).masked_fill(torch.arange(5) == 3, -torch.inf)


def test_infinities_that_are_equal_are_no_fault(tmp_path):
    model, x = prepare(Masked()), torch.randn(33, 2)
    export_onnx(model, x, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", torch.randn(9, 2)).ok
    changed = change(tmp_path / "model.onnx", "scores.bias", lambda bias: bias + np.float32(np.inf))
    assert not check_parity(model, changed, x).ok


def test_the_distances_are_those_of_the_outputs(exported):
    model, path = exported
    x = torch.randn(50, 2)
    answer = ort.InferenceSession(path).run(None, {"input": x.numpy()})[0]
    expected = model(x).detach().numpy()
    distance = np.abs(answer.astype(np.float64) - expected.astype(np.float64))
    level = check_parity(model, path, x).levels[-1]
    assert level.max_abs_diff == distance.max()
    assert level.mean_abs_diff == pytest.approx(distance.mean(), rel=1e-12)
    assert level.max_ulps == distance.max() / np.spacing(np.abs(expected).max())


def test_a_wrong_code_is_found_in_its_layer(quantized):
    model, path = quantized
    changed = change(
        path, "2.weight", lambda codes: np.where(codes == codes.max(), codes - 1, codes).astype(codes.dtype)
    )
    report = check_parity(model, changed, torch.randn(33, 2))
    assert report.outcome == "broken"
    assert report.parting.tensor == "output"
    changed = change(
        path, "0.weight", lambda codes: np.where(codes == codes.max(), codes - 1, codes).astype(codes.dtype)
    )
    report = check_parity(model, changed, torch.randn(33, 2))
    assert report.outcome == "broken"
    assert report.parting.tensor == "0/Gemm"
    assert not report.parting.explained


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_wrong_code_is_found_behind_codes_of_any_width(tmp_path, bits):
    x = torch.randn(64, 2)
    model = calibrate(prepare(small(), QATConfig(activation=QuantSpec.activation(bits))), [x])
    export_onnx(model, x, tmp_path / "model.onnx")
    changed = change(tmp_path / "model.onnx", "0.weight", lambda codes: (-codes.astype(np.int8)).astype(codes.dtype))
    assert check_parity(model, changed, x).parting.tensor == "0/Gemm"


def test_a_tie_is_counted_and_shown_but_not_a_fault(quantized):
    """The file's input scale is moved by one unit in the last place: only what lies on a tie gets another code."""
    model, path = quantized
    scale = convert(model)[0].input_quantizer.source.qparams(torch.empty(0))[0].numpy()
    wider = np.nextafter(scale, np.float32(np.inf))
    ties = (np.arange(1, 100, 2, dtype=np.float32) + np.float32(0.5)) * scale  # round to the even code above them
    tie = next(x for x in ties if np.rint(x / wider) < np.rint(x / scale))
    moved = change(path, "0.input_scale", lambda _: wider)
    plain = torch.randn(40, 2)
    assert check_parity(model, moved, plain).levels[0].code_mismatches == 0
    on_tie = plain.clone()
    on_tie[7, 0] = float(tie)
    report = check_parity(model, moved, on_tie)
    assert report.ok
    assert report.outcome == "rounding"
    assert 1 <= report.levels[0].code_mismatches <= 3
    assert (report.parting.tensor, report.parting.differing) == ("0.input/Q", 1)
    assert report.parting.tie_ulps <= 1
    assert "equal up to rounding ties: " in str(report)
    half_a_step_off = change(path, "0.input_zero_point", lambda z: z + 1)
    report = check_parity(model, half_a_step_off, plain)
    assert report.outcome == "broken"
    assert report.parting.tie_ulps > 16


def fusing_file(path, layer):
    """DequantizeLinear -> MatMul, which a default session turns into a kernel that rounds the activations."""
    codes = layer.weight_quantizer.codes(layer.weight).T.contiguous().numpy()  # (in, out)
    scale, _ = layer.weight_quantizer.source.qparams(layer.weight.reshape(len(layer.weight), -1, 32))
    initializers = [
        helper.make_tensor("codes", TensorProto.INT4, codes.shape, codes.ravel().tolist()),
        numpy_helper.from_array(scale.squeeze(-1).T.contiguous().numpy(), "scale"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["weight"], axis=0, block_size=32),
        helper.make_node("MatMul", ["input", "weight"], ["product"]),
        helper.make_node("Relu", ["product"], ["output"]),
    ]
    sizes = {"input": ["batch", codes.shape[0]], "output": ["batch", codes.shape[1]]}
    values = {n: [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)] for n, shape in sizes.items()}
    graph = helper.make_graph(nodes, "graph", values["input"], values["output"], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def test_a_default_session_that_changes_results_is_noticed_and_can_be_set_up_not_to(tmp_path):
    torch.manual_seed(0)
    spec = QuantSpec(granularity="per_group", group_size=32)
    model = prepare(nn.Sequential(nn.Linear(128, 64, bias=False), nn.ReLU()), QATConfig(spec))
    fusing_file(tmp_path / "model.onnx", convert(model)[0])
    report = check_parity(model, tmp_path / "model.onnx", torch.randn(16, 128))
    assert [level.code_mismatches == 0 for level in report.levels] == [True, True, False, False]
    setup = Setup(threads=2, config={"session.qdq_matmulnbits_accuracy_level": "1"})
    assert check_parity(model, tmp_path / "model.onnx", torch.randn(16, 128), setup=setup).ok


def test_a_provider_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"providers=\('MoonProvider',\): .*MoonProvider.*CPUExecutionProvider"):
        Setup(providers=("MoonProvider",))


def powers_of_two(model, x, path, config=POWERS):
    model = calibrate(prepare(model, config), [x])
    return model, export_onnx(model, x, path)


def test_power_of_two_scales_are_proven_exact_and_are(tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(128, 4)
    model, report = powers_of_two(nn.Sequential(*layers), torch.randn(50, 3, 8, 8), tmp_path / "model.onnx")
    assert (report.outcome, report.proof.proven) == ("exact", True)
    assert "the arithmetic is proven bit-exact" in str(report)
    converted = convert(model)
    for index, node in ((0, "0/Conv"), (2, "2/Conv"), (4, "4/Gemm")):  # the bound, from the real numbers
        layer, (scale, zero_point) = converted[index], converted[index].input_quantizer.source.qparams(torch.empty(0))
        largest_input = max(zero_point, 255 - zero_point) * scale
        unit = scale * layer.weight_quantizer.source.qparams(layer.weight)[0].flatten()
        sums = layer.weight.double().abs().flatten(1).sum(1) * largest_input + layer.bias.double().abs()
        assert report.proof.bounds[node] == (sums / unit).max()


def powers(bits):
    return QATConfig(QuantSpec(bits, power_of_two=True), QuantSpec.activation(power_of_two=True))


def test_narrow_codes_in_int8_are_proven_as_well(tmp_path):
    model, x = nn.Sequential(nn.Linear(2, 3)), torch.randn(50, 2)
    model = calibrate(prepare(model, powers(4)), [x]).eval()
    assert export_onnx(model, x, tmp_path / "model.onnx", storage="int8").proof.proven


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (W4A8, r"the scale '0.input_scale' at 0/Gemm is not a power of two"),
        (QATConfig(QuantSpec(power_of_two=True)), r"0/Gemm reads 'input', which is not on a grid"),
    ],
)
def test_what_is_not_proven_gets_a_reason(tmp_path, config, reason):
    _, report = powers_of_two(small(), torch.randn(9, 2), tmp_path / "model.onnx", config)
    assert not report.proof.proven
    assert report.proof.reason.startswith(reason)


def test_operators_that_round_are_named(tmp_path):
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))
    _, report = powers_of_two(model, torch.randn(9, 2), tmp_path / "model.onnx")
    assert report.proof.reason == "1/Tanh rounds"


def test_the_layer_that_exceeds_the_bound_is_named(tmp_path):
    layer = nn.Linear(1024, 2)
    nn.init.constant_(layer.weight, 127.0)
    config = QATConfig(QuantSpec(8, power_of_two=True), activation=POWERS.activation)
    _, report = powers_of_two(nn.Sequential(layer), torch.rand(9, 1024), tmp_path / "model.onnx", config)
    assert not report.proof.proven
    assert report.proof.bounds["0/Gemm"] >= 1024 * 127 * 255 > 2**24
    assert report.proof.reason.startswith("the sums of 0/Gemm can reach 33,")
