"""What is wrong with a quantized network in training, or that nothing is, in words, from what was measured."""

from decimal import Decimal

from app.lab.fit import Settings, StepRecord

DEAD_GRADIENT = 1e-6  # of the loss by all latent weights; a network that learns has 0.1 or more
MOSTLY = 0.5
RESTLESS = 0.01
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def diagnose(record: StepRecord, settings: Settings) -> str:
    """Two or three sentences; the first names the finding, the others the numbers behind it."""
    weights = record.weights
    if record.step == 0 or weights.gradient_norm is None:
        return "No step has been taken yet, so there is no gradient to look at."
    levels = weights.quant_max - weights.quant_min + 1
    gradient = f"the gradient norm of the latent weights is {number(weights.gradient_norm)}"
    dead = weights.gradient_norm < DEAD_GRADIENT
    if weights.clipped > MOSTLY:
        end = "and none of them can come back" if dead else "and they cannot come back by themselves"
        return (
            f"The scale is too small: {percent(weights.clipped)} of the weights lie beyond the outermost level. There "
            f"the straight-through estimator passes no gradient, {end}; {gradient}."
        )
    if weights.zeros > 0.95:
        return (
            f"The scale is too large: {percent(weights.zeros)} of the hidden layer's weights round to 0, and it uses "
            f"{weights.codes_used} of {levels} codes. A layer of zeros lets neither signal nor gradient through; "
            f"{gradient}."
        )
    if dead:
        return (
            f"Training is dead, and not for its grid: {percent(weights.clipped)} of the weights are clipped and "
            f"{weights.codes_used} of {levels} codes in use, but {gradient}. Steps of {settings.learning_rate:g} threw "
            f"the weights so far that the ReLUs are off for every x, and what is off does not learn."
        )
    health = (
        f"{percent(weights.clipped)} of the weights clipped, {weights.codes_used} of {levels} codes in use, {gradient}."
    )
    if weights.oscillating > RESTLESS:
        return (
            f"Restless: {percent(weights.oscillating)} of the hidden layer's codes flip back and forth more often than "
            f"every fiftieth step. {health} The flips die down as the learning rate decays."
        )
    return f"Healthy: {health}"


def percent(share: float) -> str:
    """A share in words that never rounds something to nothing, or nearly all to all."""
    if 0 < share < 0.001:
        return "less than 0.1%"
    if 0.999 < share < 1:
        return "more than 99.9%"
    return f"{100 * share:.3g}%"


def times(value: float, other: float) -> str:
    """How many times `other` the value is: of the two as `number` shows them, so that a reader finds the same."""
    return number(shown(value) / max(shown(other), 1e-12))


def shown(value: float) -> float:
    """What `number` writes."""
    return float(round(value)) if value >= 99.5 else float(f"{value:.1e}")


def number(value: float) -> str:
    """Two digits are enough to compare; `short` in format.js writes the same."""
    if value == 0:
        return "0"
    if value >= 99.5:
        return f"{value:,.0f}"
    two_digits = f"{value:.1e}"
    if value >= 1e-6:
        return f"{Decimal(two_digits):f}"
    digits, _, power = two_digits.partition("e")
    return f"{digits} · 10{str(int(power)).translate(RAISED)}"
