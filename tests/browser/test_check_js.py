"""The parts of the browser's check against Python's: hashes, patterns, canonical JSON and numbers, to the last bit."""

import hashlib
import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import export_onnx
from export.read.graph import Graph
from export.read.sample import digest, numbers, scatter
from export.read.web import FOLDER
from qat_core import QATConfig, QuantSpec, prepare

PATTERNS = [
    {"dtype": "float32", "shape": [128, 3], "low": -3.25, "high": 2.75, "seed": 1},
    {"dtype": "float32", "shape": [7], "low": -1e-30, "high": 1e30, "seed": 2**31 + 5},
    {"dtype": "float64", "shape": [3, 1, 5], "low": 0.1, "high": 0.30000000000000004, "seed": 0},
    {"dtype": "int64", "shape": [40], "low": -7, "high": 30521, "seed": 3},
    {"dtype": "int32", "shape": [2, 2], "low": 0, "high": 0, "seed": 4},
    {"dtype": "uint8", "shape": [64], "low": 0, "high": 255, "seed": 5},
    {"dtype": "bool", "shape": [16], "low": 0, "high": 1, "seed": 6},
    {"dtype": "float32", "shape": [0, 4], "low": 0.0, "high": 1.0, "seed": 7},
]


def test_sha256(in_module: Callable[..., Any]) -> None:
    texts = [bytes(i * 7 % 256 for i in range(length)) for length in (*range(130), 1000, 4097)]
    found = in_module(
        FOLDER / "sha256.js",
        "({ sha256 }, texts) => texts.map((text) => [sha256(Uint8Array.from(text)), "
        "sha256(Uint8Array.from(text.slice(0, 70)), '', Uint8Array.from(text.slice(70)))])",
        [list(text) for text in texts],
    )
    assert found == [[hashlib.sha256(text).hexdigest()] * 2 for text in texts]
    (word,) = in_module(FOLDER / "sha256.js", "({ sha256 }, words) => words.map((word) => sha256(word))", ["Grüße 🪜"])
    assert word == hashlib.sha256("Grüße 🪜".encode()).hexdigest()


def test_patterns_and_their_digests(in_module: Callable[..., Any]) -> None:
    ask = (
        "({ pattern, digest }, entries) => entries.map(pattern).map(({ data, dtype }) => "
        "[Array.from(data, Number), digest(data, dtype)])"
    )
    found = in_module(FOLDER / "sample.js", ask, PATTERNS)
    for entry, (values, sha256) in zip(PATTERNS, found, strict=True):
        (expected,) = numbers([entry])
        np.testing.assert_array_equal(np.array(values, expected.dtype).reshape(expected.shape), expected)
        assert sha256 == digest(expected)


def test_places(in_module: Callable[..., Any]) -> None:
    ask = "({ scatter }, [count, seed]) => [...scatter(count, seed)]"
    for count, seed in ((1000, 0), (10, 2**32 - 1), (3, 12345)):
        assert in_module(FOLDER / "sample.js", ask, [count, seed]) == scatter(count, seed).tolist()


def test_json_as_python_sorts_it(in_module: Callable[..., Any]) -> None:
    value = {
        "b": [1e-05, 1e20, 0.1, 5e-324, -0.0, 1.0, 10**30, True, None, [], {}],
        "a": {"z": 'quoted " and \\ and , : {', "é🪜": "ü\n", "Z": {"2": [[]], "10": {}}},
        "sha256": "dropped",
        "empty": "",
    }
    expected = json.dumps({key: part for key, part in value.items() if key != "sha256"}, sort_keys=True)
    for separators in ((",", ":"), (", ", ": ")):
        text = json.dumps(value, separators=separators)
        ask = "({ sortedJson }, text) => sortedJson(text, 'sha256')"
        assert in_module(FOLDER / "python_json.js", ask, text) == expected


def test_numbers_as_python_writes_them(in_module: Callable[..., Any]) -> None:
    draw = random.Random(0)
    values = [draw.uniform(1, 10) * 10 ** draw.randint(-12, 12) for _ in range(300)]
    values += [0.0, 1.0, 9.999, 99.95, 1e-4, 9.9999e-5, 123456.0, 0.1]
    found = in_module(
        FOLDER / "check.js", "({ general }, values) => values.map((v) => [general(v, 2), general(v, 3)])", values
    )
    assert found == [[f"{value:.2g}", f"{value:.3g}"] for value in values]


@pytest.mark.parametrize(
    ("spec", "columns"),
    [
        (QuantSpec(bits=8), 7),
        (QuantSpec(bits=4, symmetric=False), 7),
        (QuantSpec(bits=4, granularity="per_group", group_size=4), 6),
        (QuantSpec(bits=8, granularity="per_group", group_size=4, symmetric=False), 8),
        (QuantSpec(bits=3, half_shift=True, granularity="per_tensor"), 6),
        (QuantSpec(bits=1.58), 8),
    ],
    ids=str,
)
def test_tables_that_are_looked_up(in_module: Callable[..., Any], spec: QuantSpec, columns: int) -> None:
    model = prepare(nn.Sequential(nn.Embedding(11, columns), nn.Linear(columns, 3)), QATConfig(spec)).eval()
    file = io.BytesIO()
    export_onnx(model, torch.randint(11, (2, 3)), file)
    ask = (
        "({ readModel, codeTensors }, bytes) => codeTensors(readModel(Uint8Array.from(bytes)).graph)"
        ".map(({ name, shape, codes }) => [name, shape, [...codes]])"
    )
    found = in_module(FOLDER / "onnx.js", ask, list(file.getvalue()))
    expected = Graph(onnx.load_from_string(file.getvalue())).code_arrays()
    assert found == [[name, list(codes.shape), codes.ravel().tolist()] for name, codes in expected]
