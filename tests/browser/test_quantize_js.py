"""The arithmetic of the page's browser half against qat_core: codes, values and gradients agree to the last bit."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page
from torch import Tensor

from app.components.module import STATIC
from qat_core import QuantSpec, STEQuantize
from qat_core.affine import dequantize, minmax_qparams, quantize, round_to_codes
from qat_core.lsq import LSQuantize
from qat_core.spec import SUPPORTED_BITS

SPECS = [
    QuantSpec(bits, granularity, symmetric=symmetric, half_shift=half_shift)  # type: ignore[arg-type]
    for bits in SUPPORTED_BITS
    for granularity in ("per_tensor", "per_channel")
    for symmetric, half_shift in [(True, False), (False, False), *([(True, True)] if bits != 1.58 else [])]
]

RUN = """
({ x, gradY, bits, symmetric, halfShift, perChannel, given }) => {
  const q = window.quantizeModule;
  const spec = q.quantSpec(bits, { symmetric, halfShift });
  const groups = perChannel ? x : [x.flat()];
  const grids = groups.map((row) => ({ ...spec, ...(given ?? q.minmaxQparams(row, spec)) }));
  const each = (use) => x.map((row, i) => row.map((v, j) => use(v, grids[perChannel ? i : 0], gradY[i][j])));
  return {
    spec,
    scales: grids.map((grid) => grid.scale),
    zeroPoints: grids.map((grid) => grid.zeroPoint),
    codes: each((v, grid) => q.quantize(v, grid)),
    unclamped: each((v, grid) => q.roundToCodes(v, grid)),
    values: each((v, grid) => q.fakeQuantize(v, grid)),
    gradients: each((v, grid, gradient) => q.steGradient(gradient, v, grid)),
    oneScaleEach: each((v, grid, gradient) => q.lsqScaleGradient([gradient], [v], grid)),
  };
}
"""


@pytest.fixture(scope="module")
def script(chromium: Browser) -> Iterator[Page]:
    """An empty page with the module in it."""
    page = chromium.new_page()
    source = (STATIC / "data" / "quantize.js").read_text(encoding="utf-8")
    address = f"URL.createObjectURL(new Blob([{json.dumps(source)}], {{ type: 'text/javascript' }}))"
    page.evaluate(f"async () => {{ window.quantizeModule = await import({address}); }}")
    yield page
    page.close()


def matrix() -> Tensor:
    """Rows that differ by far: plain numbers, ties, huge ones, denormals, zeros, one sign only."""
    generator = torch.Generator().manual_seed(1)
    plain = torch.randn(6, 30, generator=generator)
    ties = torch.arange(-15, 15).div(2).expand(3, 30) * torch.tensor([[1.0], [0.25], [0.1]])
    wide = torch.randn(4, 30, generator=generator) * torch.tensor([[1e-6], [1e-3], [1e6], [1e30]])
    denormal = torch.arange(-15, 15).mul(1e-45).unsqueeze(0)
    zeros = torch.tensor([[0.0, -0.0]]).repeat(1, 15)
    return torch.cat([plain, ties, wide, denormal, zeros, plain[:1].abs(), -plain[1:2].abs()])


def in_browser(script: Page, x: Tensor, grad_y: Tensor, spec: QuantSpec, given: dict[str, float] | None) -> Any:
    arguments = {
        "x": x.tolist(),
        "gradY": grad_y.tolist(),
        "bits": spec.bits,
        "symmetric": spec.symmetric,
        "halfShift": spec.half_shift,
        "perChannel": spec.granularity == "per_channel",
        "given": given,
    }
    return script.evaluate(RUN, arguments)


def same(found: Any, expected: Tensor) -> None:
    """Equal bits, but for the sign of a zero."""
    np.testing.assert_array_equal(np.array(found, np.float64), expected.double().numpy())


def agrees(script: Page, x: Tensor, spec: QuantSpec, given: tuple[float, float] | None = None) -> None:
    # Powers of two: their products are exact, whether or not torch's addcmul is fused on this processor.
    exponents, signs = torch.randint(-3, 4, (2, *x.shape), generator=torch.Generator().manual_seed(2))
    grad_y = torch.exp2(exponents) * torch.where(signs < 0, -1.0, 1.0)
    scale, zero_point = minmax_qparams(x, spec)
    if given is not None:
        scale, zero_point = (torch.full_like(scale, value) for value in given)
    grid = (scale, zero_point, spec.quant_min, spec.quant_max, spec.shift)
    forced = {"scale": float(scale.flatten()[0]), "zeroPoint": given[1]} if given is not None else None
    found = in_browser(script, x, grad_y, spec, forced)

    names = ("levels", "quantMin", "quantMax", "shift")
    assert [found["spec"][name] for name in names] == [spec.levels, spec.quant_min, spec.quant_max, spec.shift]
    same(found["scales"], scale.flatten())
    same(found["zeroPoints"], torch.zeros_like(scale).flatten() if zero_point is None else zero_point.flatten())
    same(found["unclamped"], round_to_codes(x, scale, zero_point, spec.shift))
    codes = quantize(x, *grid)
    same(found["codes"], codes)
    same(found["values"], dequantize(codes, scale, zero_point, spec.shift))

    latent = x.clone().requires_grad_()
    STEQuantize.apply(latent, *grid).backward(grad_y)
    same(found["gradients"], latent.grad)
    scales = scale.expand_as(x).clone().requires_grad_()
    LSQuantize.apply(x.clone(), scales, *grid[1:]).backward(grad_y)
    same(found["oneScaleEach"], scales.grad)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_minmax_grids(script: Page, spec: QuantSpec) -> None:
    agrees(script, matrix(), spec)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.granularity == "per_tensor"], ids=str)
@pytest.mark.parametrize("scale", [0.25, 0.1, 2.0**-60])
def test_grids_that_clamp(script: Page, spec: QuantSpec, scale: float) -> None:
    agrees(script, matrix(), spec, (scale, 0.0 if spec.symmetric else spec.quant_max // 2))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("shift", [False, True])
def test_a_shared_scale_gets_the_sum(script: Page, bits: int, shift: bool) -> None:
    """Numbers on a coarse lattice: every partial sum is exact, in whatever order torch adds."""
    spec = QuantSpec(bits, "per_tensor", half_shift=shift)
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(-4000, 4000, (500,), generator=generator).div(1024)
    grad_y = torch.randint(-8, 9, (500,), generator=generator).div(4)
    scale = torch.tensor(0.25, requires_grad=True)
    LSQuantize.apply(x, scale, None, spec.quant_min, spec.quant_max, spec.shift).backward(grad_y)
    found = script.evaluate(
        """({ x, gradY, bits, halfShift }) => {
          const q = window.quantizeModule;
          return q.lsqScaleGradient(gradY, x, { ...q.quantSpec(bits, { halfShift }), scale: 0.25, zeroPoint: 0 });
        }""",
        {"x": x.tolist(), "gradY": grad_y.tolist(), "bits": bits, "halfShift": shift},
    )
    assert scale.grad is not None
    assert found == scale.grad.item() != 0


def test_bfloat16(script: Page) -> None:
    x = matrix().flatten()
    found = script.evaluate("(x) => x.map((v) => window.quantizeModule.toBfloat16(v))", x.tolist())
    same(found, x.bfloat16())
