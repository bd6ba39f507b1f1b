"""The address of the page: what it says is understood, or named."""

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from app.settings import CHOICES, DEFAULTS, NAMES, NUMBER, RANGES, WHOLE, Address, parse_address, parse_settings

CHAPTERS = ("rounding", "ste")
HOSTILE = [
    "", " ", "4 ", "abc", "None", "null", "true", "[4]", "{}", "per_row", "PER_TENSOR", "__class__", "per_tensor\x00",
    "nan", "-nan", "inf", "-inf", "1e999", "1e-400", "-1", "-0.1", "1.5", "4,0", "0x4", "1_0", "٤", "\uff14", "²",
    "<img src=x onerror=alert(1)>", "'; DROP TABLE", "\x00", "\r\nSet-Cookie: a", "../../etc/passwd",
    "${value}", "`${alert(1)}`", "{{7*7}}", "\ud83d\ude00", "\u202e", "9" * 5000, "0" * 10_000,
]  # fmt: skip


def test_everything_that_the_page_offers_can_be_in_the_address() -> None:
    said = {"bits": "2", "granularity": "per_channel", "noise": "0.25", "seed": "7", "scale": "learned"}
    said |= {"width": "32", "learning_rate": "3e-3", "device": "cpu", "chapter": "ste", "hide": "bits,seed"}
    found = parse_address(QueryParams(urlencode(said)), CHAPTERS)
    assert found.problems == ()
    expected = {"bits": 2, "granularity": "per_channel", "noise": 0.25, "seed": 7, "scale": "learned", "width": 32}
    assert found.settings == {**expected, "learning_rate": 0.003, "device": "cpu"}
    assert [type(found.settings[name]) for name in WHOLE] == [int, int]
    parse_settings(*(found.settings[name] for name in NAMES))


def test_an_address_that_says_nothing_sets_nothing() -> None:
    assert parse_address({}, CHAPTERS) == Address({}, ())
    assert parse_address({"__theme": "dark", "utm_source": "mail"}, CHAPTERS) == Address({}, ())


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("bits=5", "bits='5'; expected one of 2, 3, 4, 8. It is 4 now."),
        (
            "granularity=per_row",
            "granularity='per_row'; expected one of per_tensor, per_channel. It is per_tensor now.",
        ),
        ("seed=1.5", "seed='1.5'; expected a whole number from 0 to 2147483647. It is 0 now."),
        ("noise=0.6", "noise='0.6'; expected a number from 0 to 0.5. It is 0.1 now."),
        ("chapter=nowhere", "chapter='nowhere'; expected one of rounding, ste."),
        ("hide=bits,all", "hide='all'; expected some of bits, granularity"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(query: str, sentence: str) -> None:
    (problem,) = parse_address(QueryParams(query), CHAPTERS).problems
    assert problem.startswith(sentence)


def hostile(query: str) -> None:
    """The parser takes it, answers in a few short sentences, and what it sets can be trained."""
    found = parse_address(QueryParams(query), CHAPTERS)
    assert all(len(problem) < 300 for problem in found.problems)
    assert len(found.problems) <= len(NAMES) + 2
    assert set(found.settings) <= set(NAMES)
    parse_settings(*({**DEFAULTS, **found.settings}[name] for name in NAMES))
    for name, value in found.settings.items():
        if value != DEFAULTS[name]:
            assert str(value) == dict(parse_qsl(query))[name] or float(dict(parse_qsl(query))[name]) == value
            assert value in CHOICES[name] if name in CHOICES else RANGES[name][0] <= value <= RANGES[name][1]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
@pytest.mark.parametrize("name", [*NAMES, "chapter", "hide"])
def test_hostile_values_fall_back_to_the_default(name: str, text: str) -> None:
    query = urlencode({name: text.encode("utf-8", "surrogatepass")})
    hostile(query)
    found = parse_address(QueryParams(query), CHAPTERS)
    if name in NAMES and not NUMBER.fullmatch(text) and text:
        assert found.settings[name] == DEFAULTS[name]
        assert len(found.problems) == 1


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from([*NAMES, "chapter", "hide", "view"]),
        st.one_of(st.text(max_size=40), st.floats().map(str), st.integers().map(str), st.sampled_from(HOSTILE)),
    )
)
def test_any_address_is_taken(query: dict[str, str]) -> None:
    hostile(urlencode(query, errors="replace"))


@settings(max_examples=100)
@given(st.text())
def test_any_query_string_is_taken(query: str) -> None:
    parse_address(QueryParams(query), CHAPTERS)
