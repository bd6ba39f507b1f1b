"""The way of most visitors, in any browser: open, run, export, download."""

from typing import Any, Protocol

SAVED = """(async () => {
  const saved = new Promise((found) => {
    HTMLAnchorElement.prototype.click = function () { found(this.href); };
  });
  document.querySelector('#download').click();
  const answer = await fetch(await saved);
  return (await answer.arrayBuffer()).byteLength;
})()"""


class Tab(Protocol):
    """What a browser is asked to do.

    Attributes:
        problems: errors of its console.
    """

    problems: list[str]

    def open(self, url: str, width: int = ...) -> None: ...
    def evaluate(self, expression: str) -> Any: ...
    def wait_for(self, expression: str) -> None: ...


def walk(tab: Tab, server: str, width: int) -> None:
    """From the front door to a file in hand."""
    tab.open(f"{server}/?chapter=qat", width)
    tab.wait_for("Boolean(document.querySelector('#qat-run')) && !document.querySelector('#qat-run').disabled")
    tab.evaluate("document.querySelector('#qat-run').click()")
    tab.wait_for("/step [1-9][0-9]/.test(document.querySelector('#page-qat').innerText)")
    tab.evaluate("document.querySelector('#qat-pause').click()")
    assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    tab.evaluate("document.querySelector('#nav a[href*=\"chapter=export\"]').click()")
    tab.wait_for("document.querySelector('#export')?.offsetParent !== null")
    tab.evaluate("document.querySelector('#export').click()")
    tab.wait_for("document.querySelector('#download')?.disabled === false")
    assert tab.evaluate(SAVED) > 1000
    assert not tab.problems, tab.problems
