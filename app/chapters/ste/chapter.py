"""Chapter: the gradient that is put in the place of the stairs' own. It runs in the browser."""

from pathlib import Path

from app.components.code import listing
from app.components.module import beside
from app.session import Session
from qat_core import STEQuantize
from qat_core.lsq import LSQuantize
from qat_core.ste import where_not_clamped

HERE = Path(__file__).parent
TITLE = "The straight-through estimator"
LEAD = "Forward the stairs, backward a ramp: the small lie that lets a rounded weight learn."
USES = ()  # no setting of the page


def build(session: Session) -> None:
    """Draw the chapter: the estimator, its code, the learned scale, its rate, its code."""
    beside(HERE / "text.md", HERE / "ste.js", "ste", wide=True)
    listing(STEQuantize, where_not_clamped)
    beside(HERE / "lsq.md", HERE / "lsq.js", "lsq")
    beside(HERE / "rates.md", HERE / "rates.js", "rates")
    listing(LSQuantize)
