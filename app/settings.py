"""The settings that the page offers, and what its address says: `?chapter=KEY&bits=4&...&hide=bits,seed`."""

import re
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from app.lab import devices
from app.lab.fit import Settings

# What the page offers. `Settings` allows more, but a visitor shares the server with others.
CHOICES: dict[str, tuple[Any, ...]] = {
    "bits": (2, 3, 4, 8),
    "granularity": ("per_tensor", "per_channel"),
    "scale": ("minmax", "mse", "learned"),
    "device": devices.here(),
}
RANGES: dict[str, tuple[float, float]] = {
    "noise": (0, 0.5),
    "seed": (0, 2**31 - 1),
    "width": (4, 256),
    "learning_rate": (0.0001, 1),
}
WHOLE = ("seed", "width")
NAMES = ("bits", "granularity", "noise", "seed", "scale", "width", "learning_rate", "device")
DEFAULTS: dict[str, Any] = {name: getattr(Settings(), name) for name in NAMES}

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def parse_settings(*values: Any) -> Settings:
    """The settings on the page, in the order of NAMES; those left out are the defaults.

    Raises:
        ValueError: a value is not one that the page offers; the message names it and what was expected.
    """
    return Settings(**{name: parse_setting(name, value) for name, value in zip(NAMES, values, strict=False)})


def parse_setting(name: str, value: Any) -> Any:
    """One setting, as the page offers it.

    Raises:
        ValueError: as `parse_settings`.
    """
    if name in CHOICES:
        for choice in CHOICES[name]:
            if value == choice:
                return choice
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = RANGES[name]
        whole = float(value).is_integer() if abs(value) < 2**53 else False
        if low <= value <= high and (whole or name not in WHOLE):
            return int(value) if name in WHOLE else value
    found = f"{name} is empty" if value is None else f"{name}={reprlib.repr(value)}"
    raise ValueError(f"{found}; expected {expected(name)}")


def expected(name: str) -> str:
    """What the page takes for a setting, in words."""
    if name in CHOICES:
        return f"one of {', '.join(map(str, CHOICES[name]))}"
    low, high = RANGES[name]
    return f"a {'whole ' if name in WHOLE else ''}number from {low} to {high}"


@dataclass(frozen=True)
class Address:
    """
    Attributes:
        settings: name -> value of those that the address has; the default where it has a wrong one.
        problems: a sentence for everything that was not understood: the settings as they stand on the page, then
            the chapter, then what to hide.
    """

    settings: dict[str, Any]
    problems: tuple[str, ...]


def parse_address(query: Mapping[str, str], chapters: Collection[str]) -> Address:
    """Never raises: what is wrong is named, and the default holds. Parameters of others are not ours to judge."""
    settings: dict[str, Any] = {}
    problems = []
    for name in filter(query.__contains__, NAMES):
        try:
            settings[name] = parse_setting(name, from_text(name, query[name]))
        except ValueError:
            settings[name] = DEFAULTS[name]
            problems.append(f"{quoted(name, query[name])}; expected {expected(name)}. It is {DEFAULTS[name]} now.")
    if query.get("chapter", next(iter(chapters))) not in chapters:
        problems.append(f"{quoted('chapter', query['chapter'])}; expected one of {', '.join(chapters)}.")
    for name in filter(None, query.get("hide", "").split(",")):
        if name not in NAMES:
            problems.append(f"{quoted('hide', name)}; expected some of {', '.join(NAMES)}, with commas between.")
            break
    return Address(settings, tuple(problems))


def from_text(name: str, text: str) -> Any:
    """The value that a text stands for: a number where it is one and the setting wants one.

    Raises:
        ValueError: it is no number.
    """
    if isinstance(DEFAULTS[name], str):
        return text
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{quoted(name, text)} is not a number")
    return float(text)


def quoted(name: str, text: str) -> str:
    """The parameter as it was found, cut where it is endless."""
    return f"{name}={reprlib.repr(text)}"
