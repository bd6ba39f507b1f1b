"""The way of most visitors, in any browser: open, run, export, download."""

from tests.browser.tab import Tab

SAVED = """(async () => {
  const saved = new Promise((found) => {
    HTMLAnchorElement.prototype.click = function () { found(this.href); };
  });
  document.querySelector('#download').click();
  const answer = await fetch(await saved);
  return (await answer.arrayBuffer()).byteLength;
})()"""


def walk(tab: Tab, server: str, width: int) -> None:
    """From the front door to a file in hand."""
    tab.open(f"{server}/?chapter=qat", width)
    tab.wait_for("Boolean(document.querySelector('#qat-run')) && !document.querySelector('#qat-run').disabled")
    tab.click("#qat-run")
    tab.wait_for("/step [1-9][0-9]/.test(document.querySelector('#page-qat').innerText)")
    tab.click("#qat-pause")
    assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    tab.click('#nav a[href*="chapter=export"]')
    tab.wait_for("document.querySelector('#export')?.offsetParent !== null")
    tab.click("#export")
    tab.wait_for("document.querySelector('#download')?.disabled === false")
    assert tab.evaluate(SAVED) > 1000
    assert not tab.problems, tab.problems
