"""The front door: what this is, the result moving, and two ways on. It runs in the browser."""

import os
from pathlib import Path

from app.components.module import module_view
from app.runs.messages import to_json
from app.session import Session

HERE = Path(__file__).parent
TITLE = "A network that survives four bits"
LEAD = (
    "For everyone who trains networks: watch rounding to 4 bits ruin a finished one, and see how training "
    "with the rounding in place (QAT) saves it."
)
USES = ()  # no setting of the page


def build(session: Session) -> None:
    """Draw the front door."""
    module_view(HERE / "start.js", to_json({"source": source()}), elem_id="start")


def source() -> str | None:
    """Where the code of this very page lies for everybody, if it is a Space."""
    space = os.environ.get("SPACE_ID")
    return f"https://huggingface.co/spaces/{space}/tree/main" if space else None
