"""The same arithmetic written a second time, in numpy, from the definition and not from our code."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

F32 = np.float32


def fake_quantize(x, scale, zero_point, quant_min, quant_max):
    """Codes and values in float32, operation by operation as onnxruntime's reference does it."""
    zero_point, scale = F32(zero_point), np.asarray(scale, F32)
    codes = np.clip(unclamped(x, scale, zero_point), quant_min, quant_max)
    return codes, ((codes - zero_point) * scale).astype(F32)


def unclamped(x, scale, zero_point):
    """Codes before the clamp; numpy's rint rounds half to even."""
    with np.errstate(over="ignore"):  # a huge x on a tiny scale is infinite, and then clamped
        return np.rint(x.astype(F32) / np.asarray(scale, F32)) + zero_point


def floats(limit=2.0**99):
    """float32 numbers of every size: zeros, denormals, ties, huge ones."""
    plain = st.floats(-limit, limit, width=32)
    ties = st.integers(-40, 40).map(lambda n: n / 2)
    return st.one_of(plain, ties, st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.1754944e-38]))


def arrays(max_side=9, limit=2.0**99):
    """(out, in) float32 matrices."""
    return hnp.arrays(F32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=max_side), elements=floats(limit))


def scales():
    """Positive float32 scales, powers of two among them."""
    return st.one_of(st.floats(2.0**-60, 2.0**99, width=32), st.integers(-30, 30).map(lambda e: float(2.0**e)))
