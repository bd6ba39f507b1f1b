"""What the address of the page says: `?chapter=KEY&bits=4&...&hide=bits,seed`. All of it may be nonsense."""

import re
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from app.shared import DEFAULTS, NAMES, expected, parse_setting

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


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


def parse(query: Mapping[str, str], chapters: Collection[str]) -> Address:
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
