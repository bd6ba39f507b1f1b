"""What chapters are drawn with, without a browser."""

import inspect
import re
from html import unescape

from app.components.code import listed, listing
from qat_core import STEQuantize
from qat_core.ste import where_not_clamped


def test_a_listing_is_the_source_that_runs() -> None:
    html = listed(STEQuantize)
    code = re.search(r"<code>(.*)</code>", html, re.DOTALL)
    assert code
    assert unescape(re.sub(r"<[^>]+>", "", code[1])) == inspect.getsource(STEQuantize)
    assert "qat_core/ste.py: STEQuantize" in html


def test_several_things_make_one_listing() -> None:
    html = listing(STEQuantize, where_not_clamped).value
    assert html.count("<figure>") == 2
    assert html.index("qat_core/ste.py: STEQuantize") < html.index("qat_core/ste.py: where_not_clamped")
