"""What people train beyond nn.Linear: layers of transformers, tables, experts, choices by class, and what is left."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from export import check_parity, export_onnx
from qat_core import QATConfig, QuantSpec, convert, plan, prepare
from qat_core.affine import dequantize, minmax_qparams, quantize
from qat_core.layers import QuantConv1D, QuantLinear, quantized_layers
from qat_core.tables import QuantEmbedding


class Conv1D(nn.Module):
    """As transformers has it."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) * 0.3), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        size_out = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size_out)


class Block(nn.Module):
    """The feed-forward part of GPT-2, and the table before it."""

    def __init__(self):
        super().__init__()
        self.wte, self.c_fc, self.c_proj = nn.Embedding(50, 8), Conv1D(24, 8), Conv1D(8, 24)
        self.norm = nn.LayerNorm(8)

    def forward(self, ids):
        h = self.norm(self.wte(ids))
        return h + self.c_proj(F.gelu(self.c_fc(h)))


class Stacked(nn.Module):
    """Several matrices kept as one parameter."""

    def __init__(self):
        super().__init__()
        self.gate, self.w = nn.Linear(8, 3), nn.Parameter(torch.randn(3, 8, 8))

    def forward(self, x):
        return torch.einsum("bi,eio,be->bo", x, self.w, self.gate(x).softmax(-1))


IDS = torch.randint(0, 50, (3, 7))


def on_grid(weight, spec, axis=0):
    scale, zero_point = minmax_qparams(weight, spec, axis)
    return dequantize(quantize(weight, scale, zero_point, spec.quant_min, spec.quant_max), scale, zero_point)


@pytest.mark.parametrize("bits", [3, 5, 6])
def test_the_layer_of_gpt2_is_quantized_along_its_outputs(bits):
    model, spec = Block(), QuantSpec(bits)
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for layer in (expected.c_fc, expected.c_proj):
            layer.weight.copy_(on_grid(layer.weight, spec, axis=1))
        expected.wte.weight.copy_(on_grid(model.wte.weight, spec))
    prepared = prepare(model, QATConfig(spec))
    assert [type(layer) for _, layer in quantized_layers(prepared)] == [QuantEmbedding, QuantConv1D, QuantConv1D]
    torch.testing.assert_close(prepared(IDS), expected(IDS), rtol=1e-6, atol=1e-6)
    assert torch.equal(convert(prepared)(IDS), prepared.eval()(IDS))
    prepared.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    "config",
    [
        QATConfig(QuantSpec()),
        QATConfig(QuantSpec(5), QuantSpec.activation(6)),
        QATConfig(QuantSpec(8), QuantSpec(8, dynamic=True)),
    ],
    ids=str,
)
def test_the_layer_of_gpt2_is_exported(tmp_path, config):
    model = prepare(Block(), config)
    model(IDS)
    export_onnx(model.eval(), IDS, tmp_path / "block.onnx")
    check_parity(model, tmp_path / "block.onnx", IDS).raise_if_broken()


def test_classes_are_chosen_as_names_are():
    eight = QATConfig(QuantSpec(8))
    config = QATConfig(overrides={Conv1D: eight, nn.Embedding: None})
    again = QATConfig.from_dict(config.as_dict())
    assert again == config
    for chosen in (config, again):
        planned = {layer.name: layer for layer in plan(Block(), chosen).layers}
        assert planned["c_fc"].config == eight
        assert planned["wte"].reason == "left in float by override 'class torch.nn.modules.sparse.Embedding'"
    inside = plan(nn.Sequential(Block(), nn.Linear(8, 8)), QATConfig(overrides={Block: None})).quantized
    assert [layer.name for layer in inside] == ["1"]
    with pytest.raises(ValueError, match=r"override 'class torch.nn.modules.conv.Conv2d' matches no layer"):
        prepare(Block(), QATConfig(overrides={nn.Conv2d: None}))
    model = prepare(Block(), QATConfig(overrides={"c_fc": eight, Conv1D: None}))
    assert [(name, layer.weight_quantizer.spec.bits) for name, layer in quantized_layers(model)] == [
        ("wte", 4),
        ("c_fc", 8),
    ]


def test_what_stays_in_float_is_listed_with_its_shares():
    planned = plan(Stacked(), batch=torch.randn(5, 8))
    stacked, gate = planned.layers
    assert (stacked.reason, gate.reason) == ("no quantized Stacked", "")
    assert planned.share_of_parameters(stacked) == pytest.approx(3 * 64 / (3 * 64 + 27))
    assert gate.multiplications == 5 * 3 * 8
    assert "(87.7% of the parameters, 0.0% of the multiplications)" in str(planned)
    assert any(line.startswith("(no weights)") for line in str(planned).splitlines())
    assert planned.share_of_multiplications(gate) < 0.2
    assert plan(Stacked()).share_of_multiplications(gate) is None


COUNTED = {
    "rows": (nn.Linear(4, 3), torch.randn(2, 5, 4), 2 * 5 * 3 * 4),
    "image": (nn.Conv2d(4, 6, 3, groups=2), torch.randn(2, 4, 5, 5), 2 * 6 * 9 * 2 * 9),
    "back to an image": (nn.ConvTranspose2d(4, 6, 3), torch.randn(2, 4, 5, 5), 2 * 4 * 25 * 6 * 9),
    "recurrence": (nn.LSTM(4, 3, batch_first=True), torch.randn(2, 5, 4), 2 * 5 * 4 * 3 * (4 + 3)),
    "gpt2": (Conv1D(6, 4), torch.randn(2, 5, 4), 2 * 5 * 6 * 4),
    "table": (nn.Embedding(9, 4), torch.randint(0, 9, (2, 5)), 0),
}


@pytest.mark.parametrize("case", COUNTED)
def test_multiplications_are_counted_by_the_layer(case):
    layer, batch, expected = COUNTED[case]
    planned = plan(nn.Sequential(layer), batch=batch)
    assert planned.layers[0].multiplications == planned.multiplications == expected


def test_attention_multiplies_without_weights_too():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    was = layer.training
    planned = plan(layer, batch=torch.randn(2, 5, 8))
    counts = {each.name: each.multiplications for each in planned.layers}
    assert counts["self_attn"] == 3 * 2 * 5 * 64
    assert counts["self_attn.out_proj"] == 2 * 5 * 64
    assert counts["linear1"] == counts["linear2"] == 2 * 5 * 8 * 16
    assert planned.multiplications - sum(counts.values()) == 2 * 2 * 2 * 5 * 5 * 4  # scores and values, two heads
    assert layer.training == was
    assert isinstance(prepare(layer).linear1, QuantLinear)


class Attention(nn.Module):
    """(batch, length, 8) -> the same."""

    def __init__(self, attend):
        super().__init__()
        self.qkv, self.attend, self.out = nn.Linear(8, 24), attend, nn.Linear(8, 8)

    def forward(self, x):
        return self.out(self.attend(*self.qkv(x).chunk(3, -1)))


ATTENTION = {
    "scaled_dot_product_attention": nn.functional.scaled_dot_product_attention,
    "@": lambda q, k, v: (q @ k.mT).softmax(-1) @ v,
    "bmm": lambda q, k, v: torch.bmm(torch.bmm(q, k.mT).softmax(-1), v),
    "einsum": lambda q, k, v: torch.einsum("bts,bsd->btd", torch.einsum("btd,bsd->bts", q, k).softmax(-1), v),
    "MultiheadAttention": nn.MultiheadAttention(8, 2, batch_first=True),
}


@pytest.mark.parametrize("way", ATTENTION)
@pytest.mark.parametrize("activation", [None, QuantSpec.activation()])
def test_the_products_of_attention_are_listed_by_the_module_that_makes_them(way, activation):
    attend = ATTENTION[way]
    if isinstance(attend, nn.Module):
        model, where = Attention(lambda q, k, v: attend(q, k, v)[0]), "0.attention"
        model.attention = attend
    else:
        model, where = Attention(attend), "0"
    planned = plan(nn.Sequential(model, nn.ReLU()), QATConfig(activation=activation), torch.randn(3, 5, 8))
    assert planned.products == {where: 2 * 3 * 5 * 5 * 8}
    counted = sum(layer.multiplications for layer in planned.layers)
    assert counted + sum(planned.products.values()) == planned.multiplications
    share = f"{planned.products[where] / planned.multiplications:.1%}"
    assert f"in {where}: {share} of the multiplications" in str(planned)
