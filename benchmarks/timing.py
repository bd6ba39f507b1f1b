"""Two functions timed against each other on a machine that is never quiet."""

import time
from collections.abc import Callable
from statistics import median, quantiles

import torch

BLOCK_SECONDS = 0.02


def paired_ratio(baseline: Callable[[], None], other: Callable[[], None], pairs: int, device: str) -> dict[str, float]:
    """How many times longer `other` takes than `baseline`.

    Both run in short blocks, one right after the other and in alternating order: whatever slows the machine down
    slows both halves of a pair, so the ratio of a pair hardly notices. The median of many pairs forgets the rest.

    Returns:
        low, ratio, high: quartiles of the pairs' ratios; baseline_ms: median time of one baseline call.
    """
    for _ in range(3):
        baseline()
        other()
    calls = max(1, round(BLOCK_SECONDS / _seconds(baseline, 5, device)))
    ratios, baseline_seconds = [], []
    for pair in range(pairs):
        first, second = (baseline, other) if pair % 2 else (other, baseline)
        seconds = {run: _seconds(run, calls, device) for run in (first, second)}
        ratios.append(seconds[other] / seconds[baseline])
        baseline_seconds.append(seconds[baseline])
    low, ratio, high = quantiles(ratios, n=4)
    return {"low": low, "ratio": ratio, "high": high, "baseline_ms": 1e3 * median(baseline_seconds)}


def _seconds(run: Callable[[], None], calls: int, device: str) -> float:
    """Seconds of one call, measured over `calls` of them."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(calls):
        run()
    _wait(device)
    return (time.perf_counter() - start) / calls


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
