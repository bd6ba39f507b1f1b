"""A checkpoint of other scales is refused in a sentence, whatever differs and however it is loaded."""

import pytest
import torch
from torch import nn

from qat_core import QATConfig, QuantSpec, convert, prepare

LEARNED = {
    "8 bits": QuantSpec(8, scale="learned"),
    "4 bits": QuantSpec(4, scale="learned"),
    "one scale": QuantSpec(4, "per_tensor", scale="learned"),
    "unsigned": QuantSpec(4, symmetric=False, scale="learned"),
    "groups of 32": QuantSpec(4, "per_group", scale="learned"),
    "groups of 20": QuantSpec(4, "per_group", group_size=20, scale="learned"),
    "between": QuantSpec(4, scale="learned", half_shift=True),
    "searched": QuantSpec(4, scale="mse"),
    "searched, 8 bits": QuantSpec(8, scale="mse"),
    "measured": QuantSpec(4),
}
ACTIVATIONS = {
    "8 bits": QuantSpec.activation(8, scale="learned"),
    "4 bits": QuantSpec.activation(4, scale="learned"),
    "signed": QuantSpec.activation(8, scale="learned", symmetric=True),
    "searched": QuantSpec.activation(8, scale="mse"),
    "searched, 4 bits": QuantSpec.activation(4, scale="mse"),
    "measured": QuantSpec.activation(8),
    "running row": QuantSpec(8, dynamic=True),
}
X = torch.randn(16, 40)


def pairs(specs):
    """Each with the next, in both directions."""
    ring = list(zip(specs, [*specs][1:] + [*specs][:1], strict=True))
    return ring + [(b, a) for a, b in ring]


def trained(weight, activation=None):
    model = prepare(nn.Sequential(nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 3)), QATConfig(weight, activation))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        model(X).square().mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("of", "into"), pairs(LEARNED))
def test_scales_of_weights_for_another_spec(of, into, strict):
    saved, model = trained(LEARNED[of]).state_dict(), trained(LEARNED[into])
    if of != "measured":
        with pytest.raises(RuntimeError, match=r"scales of 2\.weight_quantizer\.source are of another kind in the che"):
            model.load_state_dict(saved, strict=strict)
        saved = {name: tensor for name, tensor in saved.items() if "_quantizer" not in name}
    model.load_state_dict(saved, strict=strict)
    fresh = prepare(nn.Sequential(nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 3)), QATConfig(LEARNED[into]))
    fresh.load_state_dict(saved)
    torch.testing.assert_close(model(X), fresh(X), rtol=0, atol=0)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("of", "into"), pairs(ACTIVATIONS))
def test_scales_of_activations_for_another_spec(of, into, strict):
    saved, model = trained(QuantSpec(), ACTIVATIONS[of]).state_dict(), trained(QuantSpec(), ACTIVATIONS[into])
    if of == "running row" or (of, into) == ("measured", "searched") or (of, into) == ("measured", "searched, 4 bits"):
        model.load_state_dict(saved, strict=strict)  # a range, which every grid has, or nothing at all
        return
    if into == "measured" and of.startswith("searched") and not strict:
        assert "0.input_quantizer.source.best.fraction" in model.load_state_dict(saved, strict=False).unexpected_keys
        return
    with pytest.raises(RuntimeError, match=r"0\.input_quantizer\.source"):
        model.load_state_dict(saved, strict=strict)


def test_what_differs_is_said():
    model = prepare(nn.Linear(40, 8), QATConfig(QuantSpec(4, "per_group", scale="learned")))
    for spec, sentence in (
        (
            QuantSpec(8, "per_group", scale="learned"),
            "codes from -128 to 127 in groups of 32; expected codes from -8 to",
        ),
        (QuantSpec(4, scale="learned"), r"its 'log2_growth' has the shape \(8, 1\); expected \(8, 2, 1\)"),
        (QuantSpec(4, "per_group", scale="mse"), "it has 'fraction'; expected log2_growth, grid, begin, seen"),
    ):
        with pytest.raises(RuntimeError, match=sentence):
            model.load_state_dict(prepare(nn.Linear(40, 8), QATConfig(spec)).state_dict())


def test_a_converted_model_takes_the_scales_of_its_own_grid_alone():
    saved = convert(trained(QuantSpec(8))).state_dict()
    convert(trained(QuantSpec(8))).load_state_dict(saved)
    with pytest.raises(RuntimeError, match="codes from -128 to 127; expected codes from -8 to 7"):
        convert(trained(QuantSpec(4))).load_state_dict(saved)
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.weight_quantizer\.source\.scale"):
        convert(trained(QuantSpec(8))).load_state_dict(
            {name: tensor for name, tensor in saved.items() if not name.endswith("scale")}
        )


def test_the_grid_survives_every_way_a_model_travels():
    """Half precision, averages, the meta device and copies into empty memory."""
    spec = QATConfig(QuantSpec(4, scale="learned"))
    state = trained(spec.weight).state_dict()
    average = {name: tensor * 0.1 + tensor * 0.9 for name, tensor in state.items()}
    for model in (trained(spec.weight).half().float(), trained(spec.weight).double()):
        model.load_state_dict(average)
        assert torch.equal(model[0].weight_quantizer.source.grid.float(), torch.tensor([-8.0, 7, 0, 0]))
    with torch.device("meta"):
        model = prepare(nn.Sequential(nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 3)), spec)
    model.to_empty(device="cpu")
    assert torch.equal(model[0].weight_quantizer.source.grid, torch.tensor([-8.0, 7, 0, 0]))
    model.load_state_dict(state)
    assert torch.equal(model(X), (twin := trained(spec.weight), twin.load_state_dict(state))[0](X))
