"""What goes wrong by mistake: a line in the log, a sentence for the visitor."""

import inspect
from collections.abc import Iterator

import gradio as gr
import pytest

from app.faults import SENTENCE, in_a_line


def divides(by: int, request: gr.Request) -> float:
    return 1 / by


def counts(to: int) -> Iterator[int]:
    yield from range(to)
    raise KeyError("a very\nlong word")


def refuses() -> None:
    raise gr.Error("No.")


def test_a_fault_is_one_line_that_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_a_line(divides)(2, None) == 0.5
    with pytest.raises(gr.Error, match="not your doing") as told:
        in_a_line(divides)(0, None)
    assert (told.value.message, told.value.print_exception) == (SENTENCE, False)
    counted = in_a_line(counts)(2)
    assert [next(counted), next(counted)] == [0, 1]
    with pytest.raises(gr.Error, match="not your doing"):
        next(counted)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("fault in divides, test_faults.py:")
    assert first.endswith("ZeroDivisionError: division by zero")
    assert "KeyError: 'a very\\nlong word'" in second


def test_what_is_meant_for_the_visitor_reaches_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(gr.Error, match=r"No\."):
        in_a_line(refuses)()
    assert capsys.readouterr().err == ""


def test_gradio_sees_the_same_function(page: gr.Blocks) -> None:
    assert inspect.signature(in_a_line(divides)) == inspect.signature(divides)
    assert inspect.isgeneratorfunction(in_a_line(counts))
    ours = [event.fn for event in page.fns.values() if event.fn is not None]
    assert ours
    assert all(hasattr(function, "__wrapped__") for function in ours)
