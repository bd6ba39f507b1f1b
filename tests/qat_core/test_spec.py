"""Settings are checked when they are made, and the sentence names the value."""

import dataclasses

import pytest

from qat_core import QATConfig, QuantSpec


@pytest.mark.parametrize(
    ("bits", "symmetric", "quant_min", "quant_max"),
    [(1.58, True, -1, 1), (2, True, -2, 1), (3, True, -4, 3), (4, True, -8, 7), (8, True, -128, 127)]
    + [(1.58, False, 0, 2), (2, False, 0, 3), (3, False, 0, 7), (4, False, 0, 15), (8, False, 0, 255)],
)
def test_code_range(bits, symmetric, quant_min, quant_max):
    spec = QuantSpec(bits=bits, symmetric=symmetric)
    assert (spec.quant_min, spec.quant_max) == (quant_min, quant_max)


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", 5.5), ("bits", 16), ("bits", "4"), ("bits", True), ("granularity", "per_row"), ("scale", "max")]
    + [("group_size", 0), ("group_size", 2.5), ("symmetric", "yes"), ("power_of_two", 1), ("dynamic", None)],
)
def test_a_bad_value_is_named_with_what_was_expected(field, value):
    with pytest.raises(ValueError, match=rf"^{field}={value!r}.*expected"):
        QuantSpec(**{field: value})


def test_specs_are_values():
    assert QuantSpec(bits=3) == QuantSpec(bits=3)
    assert QATConfig().weight == QuantSpec()
    with pytest.raises(dataclasses.FrozenInstanceError):
        QuantSpec().bits = 8
    assert str(QuantSpec(bits=2, granularity="per_tensor")) == "QuantSpec(bits=2, granularity='per_tensor')"
