"""Files on the runtime of this process, a line each: `python -m benchmarks.runtimes.answers FOLDER FIRST [RUNTIME]`.

Needs numpy, onnx and onnxruntime alone. A file that crashes takes the process with it: the lines end before it.
"""

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.runtimes.others import OTHERS, Answer
from export.read.distance import TOLERANCE, distances, output_range
from export.read.files import FileError
from export.read.receipt import ReceiptError, check
from export.read.runtime import LEVELS, plain

BATCHES = (1, 64, 256)


def main(folder: str, first: int, runtime: str = "onnxruntime") -> None:
    """Answer with every file from the first on, in the order of their names."""
    for path in sorted(Path(folder).glob("*.onnx"))[first:]:
        found = in_onnxruntime(path) if runtime == "onnxruntime" else {"answers": worst(path, [OTHERS[runtime]])}
        print(json.dumps({"file": path.stem, **found}), flush=True)


def in_onnxruntime(path: Path) -> dict[str, Any]:
    """What its receipt says here, and its answers in all sessions, with prepacked weights and without."""

    def starts(prepacking: bool) -> list[Callable[[Path], Answer]]:
        return [partial(start, level, arena, prepacking) for level in LEVELS for arena in (True, False)]

    return {"receipt": receipt(path), "answers": worst(path, starts(True)), "unpacked": worst(path, starts(False))}


def worst(path: Path, starts: Iterable[Callable[[Path], Answer]]) -> dict[str, Any]:
    """The furthest answer from PyTorch's in parts of their range, and the largest share beyond the tolerance."""
    known = np.load(path.with_suffix(".npz"))
    spread, furthest, share = output_range(known["y"].astype(np.float64)), 0.0, 0.0
    try:
        for start in starts:
            answer = start(path)
            for rows in BATCHES:
                (off,) = distances([answer(known["x"][:rows])], [known["y"][:rows]])
                furthest = max(furthest, float(off.max()) / spread)
                share = max(share, float((off > TOLERANCE * spread).mean()))
    except Exception as error:  # runtimes' own errors have no common type
        return {"failed": said(error)}
    return {"distance": furthest, "share": share}


def said(error: Exception) -> str:
    """Its first line, or the last where the first only says that more follows."""
    return str(error).strip().rpartition("\n")[2] if plain(error).endswith(":") else plain(error)


def receipt(path: Path) -> str:
    """holds, or why it does not."""
    try:
        report = check(path)
    except (FileError, ReceiptError) as error:
        return str(error).replace(f"{path}", "it")
    lost = [str(report.kernels)] if report.kernels and report.kernels.missing else []
    return "holds" if report.holds else "; ".join([report.verdict, *lost, *report.unmet])


def start(level: str, arena: bool, prepacking: bool, path: Path) -> Answer:
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.enable_cpu_mem_arena = arena
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_prepacking", str(int(not prepacking)))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def answer(x: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])

    return answer


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
