"""Files of every kind on every onnxruntime, on older processors, in other runtimes: where do they answer the same?"""

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.contenders import Library
from benchmarks.markdown import table
from benchmarks.runtimes.node import node
from benchmarks.runtimes.versions import CRASHED, OPENVINO, VERSIONS, answers, folder_of
from benchmarks.runtimes.zoo import SIX, kinds
from benchmarks.task import Effort
from export.read.sample import to_json
from export.read.web import runtime as web

TITLE = "Runtimes"
WHO = ("ours",)
READING = (
    "{files} small files ([`zoo.py`](runtimes/zoo.py)): weights of 1.58 to 8 bits of every granularity and grid, "
    "activations in float, of 4 and 8 bits and dynamic, MLPs, CNNs, transposed convolutions, tables, recurrences and a "
    "Transformer, both flavours, opsets 21 and 25, codes that a session unpacks as it loads. Each answers 1, 64 and "
    "256 rows at four optimization levels, with a memory arena and without, and all of it once more without prepacked "
    "weights. On Westmere six of them do."
)
NOTES = """\
- *Same* is every answer of every session within 1e-5 of the answers' range, and equal in every bit where the arithmetic
  is proven. *Ties*: no more than 2% of the answers are further away, by less than a quarter of the range, in files that
  round free numbers. *Otherwise* is all else.
- *Named* are the files that a runtime does not load and of which `python -m export check` says beforehand what they
  need.
- *Held, wrongly*: a receipt that holds for a file that answers otherwise. There must be none.
- *WebAssembly* is onnxruntime's build for browsers, on one thread of Node.js, where the modules behind `check.html` and
  "Check in your browser" recompute the receipts. It leaves the activations of MatMulNBits in float at any level.
- *Without prepacking* onnxruntime ignores that MatMulNBits is to round its activations (accuracy level 4): those files
  then answer otherwise, and `check` says so for a session that is set up like this.
"""
TIES_SHARE, TIES_REACH, TOLERANCE = 0.02, 0.25, 1e-5
PROCESSORS = {"Haswell": tuple(kinds()), "Westmere": SIX}  # AVX2 without VNNI, and neither, which takes longest
NEEDS = "this file needs "
WASM = Path(__file__).parents[1] / "runtimes" / "wasm.mjs"
WITH_RECEIPT = ("onnxruntime", "web")


def jobs(library: Library, effort: Effort) -> list[dict[str, Any]]:
    found = [{"runtime": "onnxruntime", "version": version} for version in VERSIONS]
    if effort.files == len(SIX):
        return [found[0], found[-1]]
    found += [{"runtime": "onnxruntime", "version": VERSIONS[-1], "processor": name} for name in PROCESSORS]
    others = {"runtime": "reference"}, {"runtime": "openvino", "version": OPENVINO}
    return [*found, *others, {"runtime": "web", "version": web.VERSION}]


def measure(library: Library, job: dict[str, Any], effort: Effort) -> dict[str, Any]:
    folder = written(SIX if effort.files == len(SIX) else PROCESSORS.get(job.get("processor", ""), tuple(kinds())))
    command = [sys.executable]
    if job["runtime"] == "web":
        return summary(in_javascript(Path(folder.name)))
    if "processor" in job:
        if not shutil.which("qemu-x86_64"):
            raise OSError("qemu-x86_64 is not installed here")
        command = ["qemu-x86_64", "-cpu", job["processor"], sys.executable]
    packages = {"onnxruntime": ["onnxruntime=={version}"], "openvino": ["openvino=={version}", "openvino-telemetry"]}
    wanted = [package.format(**job) for package in packages.get(job["runtime"], [])]
    return summary(answers(command, folder_of(*wanted) if wanted else None, Path(folder.name), job["runtime"]))


def in_javascript(files: Path) -> list[dict[str, Any]]:
    """What onnxruntime's build for browsers answers, a row a file, as `answers`."""
    import numpy as np

    for path in files.glob("*.npz"):
        known = np.load(path)
        path.with_suffix(".json").write_text(json.dumps({name: to_json(known[name]) for name in ("x", "y")}))
    return answers([node()], None, files, str(web.fetch()), [str(WASM)])


@cache
def written(names: Sequence[str]) -> tempfile.TemporaryDirectory[str]:
    """The files, each beside what it is asked and what PyTorch answers; they go with the process."""
    import numpy as np

    from export import export_onnx
    from export.write.tensors import to_numpy, torch_outputs
    from qat_core import convert

    folder, known = tempfile.TemporaryDirectory(), kinds()
    for name in names:
        model, x = known[name].make()
        path = Path(folder.name, f"{name}.onnx")
        proof = export_onnx(model, x[:8], path, **known[name].options).proof
        (y,) = torch_outputs(convert(model), [x])
        np.savez(path.with_suffix(".npz"), x=to_numpy(x), y=y, exact=bool(proof and proof.proven))
    return folder


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many files did what."""
    ends = {row["file"]: outcome(row["answers"], row["exact"]) for row in rows}
    not_loaded = [row for row in rows if ends[row["file"]] == "not loaded"]
    loaded = [row["answers"]["distance"] for row in rows if "distance" in row["answers"]]
    return {
        "files": len(rows),
        **{name: list(ends.values()).count(name) for name in ("same", "ties", "otherwise", "crashed")},
        "loaded": len(loaded),
        "furthest": max(loaded, default=0.0),
        "named": sum(NEEDS in row.get("receipt", "") for row in not_loaded),
        "holds": sum(row.get("receipt") == "holds" for row in rows),
        "wrongly": [n for n, end in ends.items() if end == "otherwise" and receipt_of(rows, n) == "holds"],
        "unpacked": sum(outcome(row.get("unpacked", row["answers"]), row["exact"]) == "otherwise" for row in rows),
        "why": Counter(reason(row) for row in rows if ends[row["file"]] in ("not loaded", "otherwise", "crashed")),
    }


def outcome(answers: dict[str, Any], exact: bool) -> str:
    if "failed" in answers:
        return "crashed" if answers["failed"].startswith(CRASHED) else "not loaded"
    if answers["distance"] <= (0.0 if exact else TOLERANCE):
        return "same"
    few = answers["share"] <= TIES_SHARE and answers["distance"] <= TIES_REACH
    return "ties" if few and not exact else "otherwise"


def receipt_of(rows: Sequence[dict[str, Any]], name: str) -> str:
    return next((str(row.get("receipt", "")) for row in rows if row["file"] == name), "")


def reason(row: dict[str, Any]) -> str:
    """In few words: what the check says, or the runtime."""
    said = row.get("receipt", "")
    if NEEDS in said:
        return str(said[said.index(NEEDS) + len("this file ") :]).partition(";")[0]
    if "failed" in row["answers"]:
        return str(row["answers"]["failed"])[:100].replace("|", "/")
    return f"{row['file']} is {row['answers']['distance']:.2g} of the range off" + (f" ({said})" if said else "")


def render(rows: dict[str, list[dict[str, Any]]]) -> str:
    (found,) = rows.values()
    headers = ["runtime", "loaded", "same", "ties", "otherwise", "furthest, of the range", "not loaded, named"]
    headers += ["crashed", "receipts that hold", "held, wrongly", "otherwise without prepacking"]
    whole = [row for row in found if "failed" not in row]
    why = [[title(row), f"{count}", text] for row in whole for text, count in row["why"].items()]
    failed = [f"{title(row)} was not measured: {row['failed']}" for row in found if "failed" in row]
    reasons = table(["runtime", "files", "why not"], why) if why else ""
    return "\n\n".join([table(headers, [_cells(row) for row in whole]), NOTES, reasons, *failed])


def title(row: dict[str, Any]) -> str:
    names = {
        "onnxruntime": "onnxruntime {version}",
        "reference": "onnx, ReferenceEvaluator",
        "openvino": "OpenVINO {version}",
        "web": "onnxruntime-web {version}, WebAssembly",
    }
    processor = f" on {row['processor']} (qemu)" if "processor" in row else ""
    return names[row["runtime"]].format(**row) + processor


def _cells(row: dict[str, Any]) -> list[str]:
    asked = row["runtime"] in WITH_RECEIPT
    return [
        title(row),
        f"{row['loaded']} of {row['files']}",
        *(f"{row[name]}" for name in ("same", "ties", "otherwise")),
        f"{row['furthest']:.1e}",
        f"{row['named']} of {row['files'] - row['loaded'] - row['crashed']}" if asked else "-",
        f"{row['crashed']}",
        *([f"{row['holds']}", f"{len(row['wrongly'])}", f"{row['unpacked']}"] if asked else ["-"] * 3),
    ]
