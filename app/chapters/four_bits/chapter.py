"""Chapter: what four bits save, and what they cost. It runs in the browser; nothing is asked of the server."""

from pathlib import Path

from app.components.module import beside
from app.session import Session

HERE = Path(__file__).parent
TITLE = "Why four bits"
LEAD = "Choose a width, and see what it saves and what it costs."
USES = ()  # no setting of the page


def build(session: Session) -> None:
    """Draw the chapter."""
    beside(HERE / "text.md", HERE / "four_bits.js", "four-bits")
