"""Every kind of layer against its FP32 twin fed with weights and inputs that an oracle put on the grid."""

import copy
import re

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, calibrate, convert, prepare
from qat_core.affine import dequantize, from_groups, minmax_qparams, quantize, to_groups
from qat_core.layers import QuantLayer, quantized_layers
from qat_core.observer import OFF_TIES

torch.manual_seed(0)
IMAGE, SEQUENCE, WORDS = torch.randn(2, 4, 9, 9), torch.randn(2, 4, 9), torch.randint(0, 20, (3, 5))
LAYERS = {
    "Linear": (nn.Linear(9, 5), SEQUENCE),
    "Conv1d": (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), SEQUENCE),
    "Conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), IMAGE),
    "Conv3d": (nn.Conv3d(1, 3, 3), IMAGE.unsqueeze(1)),
    "ConvTranspose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), SEQUENCE),
    "ConvTranspose2d": (nn.ConvTranspose2d(4, 6, 3, stride=2, dilation=2, groups=2), IMAGE),
    "Embedding": (nn.Embedding(20, 7, padding_idx=0), WORDS),
    "EmbeddingBag": (nn.EmbeddingBag(20, 7, mode="mean"), WORDS),
    "LSTM": (nn.LSTM(9, 6, num_layers=2, bidirectional=True, batch_first=True), SEQUENCE),
    "GRU": (nn.GRU(9, 6), SEQUENCE),
}
SPECS = [
    QuantSpec(granularity="per_tensor"),
    QuantSpec(bits=2),
    QuantSpec(bits=3, symmetric=False),
    QuantSpec(bits=1.58, granularity="per_group", group_size=5),
    QuantSpec(bits=2, half_shift=True),
    QuantSpec(bits=8, power_of_two=True),
]


def on_grid(tensor, spec, axis=0, hair=1.0):
    groups = to_groups(tensor, spec)
    scale, zero_point = minmax_qparams(groups, spec, axis)
    scale = scale * hair
    codes = quantize(groups, scale, zero_point, spec.quant_min, spec.quant_max, spec.shift)
    return from_groups(dequantize(codes, scale, zero_point, spec.shift), tensor.shape), scale


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_forward_is_fp32_with_weights_on_the_grid(kind, spec):
    layer, x = LAYERS[kind]
    prepared, expected = prepare(layer, QATConfig(spec)), copy.deepcopy(layer)
    assert isinstance(prepared, QuantLayer)
    assert type(prepared).__name__ == f"Quant{kind}"
    with torch.no_grad():
        for name in prepared.weight_names():
            getattr(expected, name).copy_(on_grid(getattr(layer, name), spec, prepared.axis)[0])
        assert torch.equal(first(prepared(x)), first(expected(x)))
        assert torch.equal(first(convert(prepared)(x)), first(expected(x)))


@pytest.mark.parametrize("kind", LAYERS)
def test_arguments_have_the_names_of_the_fp32_layer(kind):
    """A model that calls its layers by keyword goes on doing so."""
    layer, x = LAYERS[kind]
    prepared = prepare(layer)
    states = {"hx": prepared(x)[1]} if kind in ("LSTM", "GRU") else {}
    assert torch.equal(first(prepared(input=x, **states)), first(prepared(x, *states.values())))


@pytest.mark.parametrize("kind", LAYERS)
def test_every_parameter_gets_a_gradient(kind):
    layer, x = LAYERS[kind]
    prepared = prepare(layer, QATConfig(QuantSpec(scale="learned"), QuantSpec.activation(scale="learned")))
    first(prepared(x)).square().sum().backward()
    for name, parameter in prepared.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("kind", ["Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d"])
def test_with_activations_the_bias_lies_on_the_grid_of_the_products(kind, granularity):
    layer, x = LAYERS[kind]
    config = QATConfig(QuantSpec(granularity=granularity), QuantSpec.activation(8))
    converted = convert(calibrate(prepare(layer, config), [x]))
    weight, weight_scale = on_grid(layer.weight.detach(), config.weight, converted.axis)
    quantized_x, input_scale = on_grid(x, config.activation, hair=OFF_TIES)
    unit = (input_scale * weight_scale).flatten()
    unit = unit.repeat(len(layer.bias) // len(unit))
    expected = copy.deepcopy(layer)
    with torch.no_grad():
        expected.weight.copy_(weight)
        expected.bias.copy_(torch.round(layer.bias / unit) * unit)
        assert torch.equal(converted.bias, expected.bias)
        assert torch.equal(converted(x), expected(quantized_x))


def test_a_channel_of_zeros_keeps_its_bias():
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.bias.copy_(torch.tensor([1.5, -0.5]))
    for granularity in ("per_channel", "per_tensor"):
        config = QATConfig(QuantSpec(granularity=granularity), QuantSpec.activation(8))
        converted = convert(calibrate(prepare(layer, config), [torch.rand(8, 3)]))
        assert converted(torch.zeros(1, 3))[0, 0].item() == pytest.approx(1.5, rel=1e-3)
        scale, _ = converted.weight_quantizer.source.qparams(converted.weight)
        assert bool(((converted.bias / (converted.input_quantizer.source.scale * scale.flatten())).abs() < 2**31).all())


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "padding", "per_head"])
def test_attention_equals_torchs_own_on_the_same_weights(need_weights, batch_first, mask):
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first)
    with torch.no_grad():
        attention.in_proj_bias.normal_()
    prepared = prepare(attention, QATConfig(QuantSpec(bits=4)))
    with torch.no_grad():
        attention.in_proj_weight.copy_(on_grid(attention.in_proj_weight, QuantSpec())[0])
        attention.out_proj.weight.copy_(on_grid(attention.out_proj.weight, QuantSpec())[0])
    query, key = torch.randn(3, 5, 8), torch.randn(3, 6, 8)
    masks = {
        "none": {},
        "bool": {"attn_mask": torch.ones(5, 6).triu(2).bool()},
        "float": {"attn_mask": torch.randn(5, 6)},
        "padding": {"key_padding_mask": torch.arange(6).expand(3, 6) > 3},
        "per_head": {"attn_mask": torch.randn(6, 5, 6)},
    }[mask]
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    for q, k in ((query, key), (query, query)) if mask == "none" else ((query, key),):
        expected, expected_weights = attention(q, k, k, need_weights=need_weights, **masks)
        y, weights = prepared(q, k, k, need_weights=need_weights, **masks)
        torch.testing.assert_close(y, expected)
        if need_weights:
            torch.testing.assert_close(weights, expected_weights)
        else:
            assert weights is None


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("key_padding_mask", (6, 2), (2, 6)),
        ("attn_mask", (6, 5), (5, 6)),
        ("attn_mask", (2, 5, 6), (4, 5, 6)),
    ],
)
def test_a_mask_of_another_shape_is_refused_as_torch_refuses_it(name, shape, expected):
    attention, (q, k) = nn.MultiheadAttention(8, 2, batch_first=True), (torch.randn(2, 5, 8), torch.randn(2, 6, 8))
    with pytest.raises((AssertionError, RuntimeError)):
        attention(q, k, k, **{name: torch.zeros(shape)})
    with pytest.raises(ValueError, match=re.escape(f"{name} has shape {shape}; expected {expected}")):
        prepare(attention)(q, k, k, **{name: torch.zeros(shape)})


@pytest.mark.parametrize("padding", [None, torch.zeros(2, 5, dtype=torch.bool)], ids=["alone", "padding"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_a_causal_hint_without_its_mask_is_refused_as_torch_refuses_it(need_weights, padding):
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 5, 8)
    hint = {"is_causal": True, "need_weights": need_weights, "key_padding_mask": padding}
    with pytest.raises(RuntimeError):
        attention(x, x, x, **hint)
    prepared = prepare(attention)
    with pytest.raises(ValueError, match="is_causal=True without attn_mask"):
        prepared(x, x, x, **hint)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    y, z = (prepared(v, v, v, attn_mask=mask, **hint)[0] for v in (x, x + 9 * (torch.arange(5) == 4)[:, None]))
    assert torch.equal(y[:, :4], z[:, :4])


def test_the_encoders_fused_kernel_does_not_bypass_the_quantizers():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2)
    prepared, x = prepare(encoder, QATConfig(QuantSpec(bits=2))), torch.randn(2, 5, 8)
    trained = prepared(x)
    with torch.no_grad():
        torch.testing.assert_close(prepared.eval()(x), trained.detach())
        assert (prepared(x) - encoder.eval()(x)).abs().max() > 0.01


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_encoder_does_not_pack_padded_sequences_for_its_fused_kernel():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2)
    prepared, x = prepare(encoder), torch.randn(2, 5, 8)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    trained = prepared(x, src_key_padding_mask=padding)
    with torch.no_grad():
        torch.testing.assert_close(prepared.eval()(x, src_key_padding_mask=padding), trained.detach())


def test_tied_weights_are_quantized_once_and_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, words):
            return self.head(self.embed(words))

    prepared = prepare(Tied(), QATConfig(QuantSpec(scale="learned")))
    assert prepared.head.weight is prepared.embed.weight
    assert prepared.head.weight_quantizer is prepared.embed.weight_quantizer
    assert sum(1 for _ in prepared.parameters()) == 2
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.1)
    prepared(torch.tensor([[1, 2, 3]])).square().sum().backward()
    optimizer.step()
    converted = convert(prepared)
    assert converted.head.weight is converted.embed.weight
    with pytest.raises(ValueError, match="shared by layers with different specs"):
        prepare(Tied(), QATConfig(overrides={"head": QATConfig(QuantSpec(bits=8))}))


def test_a_module_that_stands_in_two_places_stays_one():
    layer = nn.Linear(4, 4)
    prepared = prepare(nn.Sequential(layer, nn.ReLU(), layer))
    assert prepared[0] is prepared[2]
    assert isinstance(prepared[0], QuantLayer)


def test_lists_dicts_subclasses_and_frozen_layers():
    class Plain(nn.Linear):
        """A subclass that adds nothing to the forward."""

    model = nn.ModuleDict({"list": nn.ModuleList([nn.Linear(3, 3), Plain(3, 3)]), "frozen": nn.Linear(3, 3)})
    model["frozen"].requires_grad_(False)
    prepared = prepare(model)
    assert [name for name, _ in quantized_layers(prepared)] == ["list.0", "list.1", "frozen"]
    assert not prepared["frozen"].weight.requires_grad


LEARNED = QATConfig(QuantSpec(scale="learned"), QuantSpec.activation(8, scale="learned"))


@pytest.mark.parametrize("kind", LAYERS)
def test_nothing_of_a_frozen_layer_learns_until_it_is_thawed(kind):
    layer, x = LAYERS[kind]
    prepared = calibrate(prepare(copy.deepcopy(layer).requires_grad_(False), LEARNED), [x])
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
    prepared.requires_grad_(True)
    first(prepared(x)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in prepared.parameters())


@pytest.mark.parametrize("scale", ["minmax", "learned"])
@pytest.mark.parametrize("frozen", [nn.Linear(4, 4), nn.Conv1d(3, 3, 1)], ids=["Linear", "Conv1d"])
def test_what_goes_into_a_frozen_layer_may_be_changed_in_place(frozen, scale):
    config = QATConfig(QuantSpec(scale=scale), QuantSpec.activation(8, scale=scale))
    prepared, before = prepare(copy.deepcopy(frozen).requires_grad_(False), config), nn.Linear(4, 4)
    x = before(torch.randn(2, 3, 4))
    y = prepared(x)
    x += y
    x.sum().backward()
    assert before.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_quantized_in_float32(dtype):
    layer = nn.Linear(6, 3).to(dtype)
    y = prepare(layer)(torch.randn(2, 6, dtype=dtype))
    assert y.dtype == dtype
    weight = prepare(layer).weight_quantizer(layer.weight)
    assert torch.equal(weight, on_grid(layer.weight.float(), QuantSpec())[0].to(dtype))


def test_on_a_gpu_everything_moves_along():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    config = QATConfig(QuantSpec(scale="learned"), QuantSpec.activation(scale="learned"))
    prepared = prepare(nn.Linear(6, 3).cuda(), config)
    prepared(torch.randn(2, 6, device="cuda")).sum().backward()
    assert {p.device.type for p in prepared.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize("scale", ["minmax", "learned"])
def test_a_prepared_model_holds_little_more_than_its_parameters(scale):
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    prepared = prepare(model, QATConfig(QuantSpec(scale=scale), QuantSpec.activation(8, scale=scale)))

    def size(module):
        return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])

    assert size(prepared) <= 1.1 * size(model)
