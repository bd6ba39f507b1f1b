"""The check of a receipt in a browser: modules that need no page around them, and the onnxruntime that they run."""

from pathlib import Path

from export.read.web import runtime

__all__ = ["FOLDER", "runtime"]

FOLDER = Path(__file__).parent
