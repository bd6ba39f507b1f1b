"""Chapter: what rounding does to one weight, and one scale to a matrix. It runs in the browser."""

from pathlib import Path

from app.components.module import beside
from app.session import Session

HERE = Path(__file__).parent
TITLE = "Rounding"
LEAD = "Drag a weight along the stairs: divide by the scale, round, clamp, and back to a float."
USES = ()  # no setting of the page


def build(session: Session) -> None:
    """Draw the chapter: a weight on the stairs, a matrix on its levels, and a question."""
    beside(HERE / "text.md", HERE / "rounding.js", "rounding")
    beside(HERE / "granularity.md", HERE / "granularity.js", "granularity-strips")
    beside(HERE / "mistakes.md", HERE / "mistakes.js", "mistakes")
