"""The course: one folder a chapter, with its Python, prose, scripts and style. A chapter never imports another."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from app.session import Session

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Chapter:
    """
    Attributes:
        key: names its folder, and the chapter in the address.
        title: stands above it, and in the list of chapters.
        lead: what it is about, in a sentence, which comes before all else.
        uses: the settings of the page that it shows.
        build: draws it.
    """

    key: str
    title: str
    lead: str
    uses: tuple[str, ...]
    build: Callable[[Session], None]

    @classmethod
    def of(cls, key: str) -> "Chapter":
        """What `chapter.py` in that folder says of itself."""
        said = import_module(f"{__name__}.{key}.chapter")
        return cls(key, said.TITLE, said.LEAD, said.USES, said.build)


CHAPTERS = (
    Chapter.of("start"),  # the front door, which is not counted
    Chapter.of("four_bits"),
    Chapter.of("rounding"),
    Chapter.of("zero_gradient"),
    Chapter.of("ste"),
    Chapter.of("one_step"),
    Chapter.of("fp32"),
    Chapter.of("ptq"),
    Chapter.of("qat"),
    Chapter.of("sensitive"),
    Chapter.of("export"),
    Chapter.of("onnxruntime"),
    Chapter.of("your_turn"),
)
