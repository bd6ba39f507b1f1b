"""The receipt: what was promised, inside the file, so that any machine the file reaches can check it.

It lies in the model's metadata as JSON: a small sample input, the outputs PyTorch gave for it, the tolerance,
versions, settings and a hash of the integer codes. `check` recomputes all of it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.audit import code_arrays
from export.files import load
from export.parity import ParityReport, compare

KEY = "qat_receipt"
FORMAT = 1


class ReceiptError(ValueError):
    """A file has no receipt, or does not keep what its receipt promises; the message says which."""


def attach(
    model: onnx.ModelProto,
    inputs: Sequence[NDArray[np.generic]],
    outputs: Sequence[NDArray[np.generic]],
    tolerance: float,
    versions: dict[str, str],
    settings: dict[str, Any],
) -> None:
    """Write the receipt into the model's metadata.

    Args:
        inputs, outputs: the sample, and what PyTorch answered.
        tolerance: the largest distance that keeps the promise, in the output's unit.
        versions: package -> version that made the file.
        settings: how the file was exported.
    """
    receipt = {
        "format": FORMAT,
        "versions": versions,
        "settings": settings,
        "inputs": [_to_json(a) for a in inputs],
        "outputs": [_to_json(a) for a in outputs],
        "tolerance": tolerance,
        "codes_sha256": hash_codes(code_arrays(model)),
    }
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(receipt)


def read(model: onnx.ModelProto) -> dict[str, Any]:
    """The receipt of a model.

    Raises:
        ReceiptError: there is none, or it cannot be understood.
    """
    text = next((p.value for p in model.metadata_props if p.key == KEY), None)
    if text is None:
        raise ReceiptError("the file has no receipt: it was not made by export_onnx, or its metadata was removed")
    try:
        receipt = json.loads(text)
        missing = {"inputs", "outputs", "tolerance", "codes_sha256"} - set(receipt)
        found = receipt["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise ReceiptError(f"the receipt cannot be understood: {error}") from error
    if found != FORMAT or missing:
        raise ReceiptError(
            f"the receipt has format {found!r} and lacks {sorted(missing) or 'nothing'}; expected {FORMAT}"
        )
    return dict(receipt)


def check(path: str | os.PathLike[str]) -> ParityReport:
    """Recompute a file's receipt with the onnxruntime of this machine.

    Returns:
        onnxruntime at every optimization level against the outputs that the receipt promises.

    Raises:
        FileError: the file cannot be read or is not a valid ONNX model.
        ReceiptError: there is no receipt, or the codes are not the ones it was written for.
    """
    model = load(path)
    receipt = read(model)
    found = hash_codes(code_arrays(model))
    if found != receipt["codes_sha256"]:
        raise ReceiptError(
            f"the integer codes were changed: their SHA-256 is {found[:12]}..., the receipt says "
            f"{str(receipt['codes_sha256'])[:12]}..."
        )
    try:
        inputs = [_from_json(a) for a in receipt["inputs"]]
        outputs = [_from_json(a) for a in receipt["outputs"]]
        tolerance = float(receipt["tolerance"])
    except (TypeError, ValueError, KeyError) as error:
        raise ReceiptError(f"the receipt cannot be understood: {error}") from error
    return compare(path, inputs, outputs, tolerance)


def hash_codes(codes: Iterable[tuple[str, NDArray[np.generic]]]) -> str:
    """SHA-256 over names, shapes and values of integer codes."""
    digest = hashlib.sha256()
    for name, array in codes:
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.astype("<i4").tobytes())
    return digest.hexdigest()


def _to_json(array: NDArray[np.generic]) -> dict[str, Any]:
    """A float32 is written with the fewest digits that give the same float32 back."""
    values = [float(str(v)) for v in array.ravel()] if array.dtype.kind == "f" else array.ravel().tolist()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": values}


def _from_json(entry: dict[str, Any]) -> NDArray[np.generic]:
    return np.array(entry["values"], dtype=entry["dtype"]).reshape(entry["shape"])
