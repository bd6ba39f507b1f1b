"""How a file's speed beside float32 is said, everywhere in the same words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ALIKE = 1.1  # a ratio nearer to 1 than this is no difference
NAMED, LEAST_SHARE = 3, 0.1  # layers in the sentence, each with so much of what is lost


class SpeedError(RuntimeError):
    """A file is slower than it was asked to be; the message says by how much, and which layers cost."""


@dataclass(frozen=True)
class Speed:
    """One file beside float32, on this machine.

    Attributes:
        times: as fast as float32.
        milliseconds, float_milliseconds: of one call, the quickest round.
        threads: within an operator.
        costly: where it is slower: layer -> milliseconds that it takes longer than in float32, the costliest first.
        why: layer -> why.
    """

    times: float
    milliseconds: float
    float_milliseconds: float
    threads: int = 1
    costly: Mapping[str, float] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One sentence."""
        threads = "one thread" if self.threads == 1 else f"{self.threads or 'all'} threads"
        figures = f"{shown(self.milliseconds)} against {shown(self.float_milliseconds)} ms on {threads} here"
        return f"{compared(self.milliseconds, self.float_milliseconds)} ({figures}){self.reason}"

    @property
    def reason(self) -> str:
        """Which layers cost, and why; empty where nothing is lost."""
        lost = sum(self.costly.values())
        named = [name for name, cost in self.costly.items() if cost >= LEAST_SHARE * lost][:NAMED]
        if not named:
            return ""
        reasons = dict.fromkeys(self.why[name] for name in named if name in self.why)
        because = f", since {' and '.join(reasons)}" if reasons else ""
        costs = "costs" if len(named) == 1 else "cost"
        return f": {', '.join(name or 'the model' for name in named)} {costs} the most{because}"

    def raise_if_below(self, least: float | None) -> None:
        """Raises SpeedError if the file is slower than so many times as fast as float32."""
        if least is not None and self.times < least:
            raise SpeedError(f"the file is {self.times:.2f} times as fast as float32, expected {least:g}: {self}")


@dataclass(frozen=True)
class Choice:
    """The form of one layer in a file of the flavor "auto".

    Attributes:
        layer: its name.
        form: "qdq", "packed", "int8", "ort" or "float".
        milliseconds: form -> what the layer took in it, in one call; without those that it cannot have or that this
            machine does not run as they were meant.
    """

    layer: str
    form: str
    milliseconds: Mapping[str, float]

    def __str__(self) -> str:
        others = ", ".join(f"{form} {took:.2g} ms" for form, took in self.milliseconds.items() if form != self.form)
        took = f" {self.milliseconds[self.form]:.2g} ms" if self.form in self.milliseconds else ""
        return f"{self.layer or 'the model'} as {self.form}{took}" + (f" ({others})" if others else "")


def summary(choices: Sequence[Choice]) -> str:
    """How many layers have which form; nothing where none was chosen."""
    if choices and all(choice.form == "float" for choice in choices):
        return f"none of {len(choices)} layers has a form smaller than float32 that is as quick here"
    counts = Counter(choice.form for choice in choices)
    forms = ", ".join(f"{count} as {form}" for form, count in counts.items())
    return f"of {len(choices)} layers {forms}, the quickest form of each here" if choices else ""


def shown(milliseconds: float) -> str:
    """Two digits are enough to compare."""
    return f"{milliseconds:,.0f}" if milliseconds >= 99.5 else f"{milliseconds:.2g}"


def compared(milliseconds: float, float_milliseconds: float) -> str:
    """How a time is compared with float32's, wherever it is: as the two are shown, so that a reader finds the same."""
    times = _read(float_milliseconds) / _read(milliseconds)
    if max(times, 1 / times) < ALIKE:
        return "about as fast as float32"
    return f"{times:.2g} times as fast as float32" if times > 1 else f"{1 / times:.2g} times slower than float32"


def _read(milliseconds: float) -> float:
    return float(shown(milliseconds).replace(",", ""))
