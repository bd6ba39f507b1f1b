"""The rows that a receipt asks for can be made again by any language, and a fault that shows in few answers is seen."""

import hashlib
import json
import struct
from fractions import Fraction
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import export.read.compare
from export import check, export_onnx
from export.read.receipt import KEY
from export.read.sample import Sample, digest, numbers, pattern_like, pattern_rows, promise, sample_of, spread
from qat_core import QATConfig, QuantSpec
from tests.export.models import W4A8, prepared

POWERS = QATConfig(QuantSpec(power_of_two=True), QuantSpec.activation(power_of_two=True))


def mixed(k, seed):
    """As the docstring says it, in whole numbers of Python."""
    u = (k + 0x9E3779B9 * seed) % 2**32
    u = (u ^ u >> 16) * 0x21F0AAAD % 2**32
    u = (u ^ u >> 15) * 0x735A2D97 % 2**32
    return u ^ u >> 15


@pytest.mark.parametrize("seed", [0, 1, 7, 2**20])
def test_patterns_are_what_the_docstring_says_in_whole_numbers(seed):
    entry = pattern_like(np.array([-1.7, 0.3], np.float32), (5, 3, 4), seed)
    (found,) = numbers([json.loads(json.dumps(entry))])
    low, high = (float(np.float32(end)) for end in (-1.7, 0.3))
    span = struct.unpack("f", struct.pack("f", high - low))[0]
    exact = [Fraction(low) + Fraction(span) * (mixed(k, seed) >> 8) / 2**24 for k in range(60)]
    assert found.dtype == np.float32
    assert found.ravel().tolist() == [struct.unpack("f", struct.pack("f", float(x)))[0] for x in exact]
    (words,) = numbers([pattern_like(np.array([3, 9]), (4, 4), seed)])
    assert words.ravel().tolist() == [3 + mixed(k, seed) % 7 for k in range(16)]
    (truths,) = numbers([pattern_like(np.array([False, True]), (32,), seed)])
    assert truths.tolist() == [bool(mixed(k, seed) % 2) for k in range(32)]


@pytest.mark.parametrize(("size", "count"), [(10, 10), (1000, 64), (65, 64), (1, 1), (0, 0), (2**20, 128)])
def test_the_numbers_of_an_output_that_are_kept_lie_all_over_it(size, count):
    places = spread(size, count).tolist()
    ends = [i * size // max(count, 1) for i in range(count + 1)]
    assert places == [a + mixed(i, 0) % (b - a) for i, (a, b) in enumerate(pairwise(ends))]
    assert len(set(places)) == count


def test_rows_are_fewer_where_they_are_large():
    def rows(*shape, outputs=4):
        x, y = np.zeros((16, *shape), np.float32), np.zeros((16, outputs), np.float32)
        ((entry,)) = pattern_rows([x], [y], [0], 128, 1)
        return entry["shape"][0]

    assert [rows(8), rows(3, 32, 32), rows(3, 64, 64), rows(3, 512, 512)] == [128, 128, 42, 1]
    assert rows(8, outputs=2**16) == 8


def test_a_hash_is_of_all_numbers_and_takes_both_zeros_for_one():
    y = np.array([[0.0, 1.5]], np.float32)
    assert (
        digest(y)
        == digest(np.array([[-0.0, 1.5]], np.float32))
        == hashlib.sha256(struct.pack("<2f", 0, 1.5)).hexdigest()
    )
    y = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    sample = sample_of([], [json.loads(json.dumps(promise(y, exact=True, most=16)))])
    assert isinstance(sample, Sample)
    wrong = y.copy()
    place = next(i for i in range(y.size) if i not in spread(y.size, 16))
    wrong.ravel()[place] += 1
    assert sample.distances([y])[0].max() == 0
    assert sample.distances([wrong])[0].max() == np.inf
    assert len(sample.distances([y])[0]) == y.size


def receipt_of(path):
    return json.loads(next(p.value for p in onnx.load(path).metadata_props if p.key == KEY))


@pytest.fixture(scope="module", params=[QATConfig(), W4A8, POWERS], ids=["weights", "W4A8", "powers of two"])
def exported_once(tmp_path_factory, request):
    torch.manual_seed(0)
    path, x = tmp_path_factory.mktemp("once") / "model.onnx", torch.randn(16, 8)
    model = prepared(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 24)), request.param, x)
    export_onnx(model, x, path)
    return path.read_bytes()


def test_many_rows_and_one_are_asked(file):
    assert [sample["inputs"][0]["shape"] for sample in receipt_of(file)["samples"]] == [[8, 8], [128, 8], [1, 8]]
    assert ("sha256" in receipt_of(file)["samples"][1]["outputs"][0]) == check(file).proof.proven


def break_large_batches(monkeypatch, wrong):
    """As kernels for large batches may be wrong: some columns of the first rows."""
    run = export.read.compare.run

    def broken(session, inputs, **options):
        (y,) = run(session, inputs, **options)
        return [wrong(y) if len(y) >= 64 else y]

    monkeypatch.setattr(export.read.compare, "run", broken)


def test_a_kernel_that_is_wrong_in_large_batches_only_does_not_hold(file, monkeypatch):
    def wrong(y):
        y = y.copy()
        y[:64, 16:] += np.ptp(y)
        return y

    assert check(file).holds
    break_large_batches(monkeypatch, wrong)
    assert not check(file).holds


def test_one_number_that_is_wrong_is_seen_where_answers_are_exact(file, monkeypatch):
    def wrong(y):
        y = y.copy()
        y[77, 5] = np.nextafter(y[77, 5], np.inf)
        return y

    proven = check(file).proof.proven
    break_large_batches(monkeypatch, wrong)
    assert check(file).holds == (not proven)


def test_a_few_ties_may_fall_otherwise_and_many_may_not(file, monkeypatch):
    found = check(file)
    if found.proof.proven or found.ties.numbers == 0:
        assert found.ties.numbers == 0
        return

    def moved(share):
        def wrong(y):
            y = y.copy()
            y.ravel()[: int(share * y.size)] += 0.02 * np.ptp(y)
            return y

        return wrong

    with monkeypatch.context() as few:
        break_large_batches(few, moved(0.02))
        report = check(file)
        assert report.holds
        assert report.verdict.startswith("equal up to rounding ties")
    with monkeypatch.context() as many:
        break_large_batches(many, moved(0.2))
        assert not check(file).holds


class Attention(nn.Module):
    """Where every place is masked the answer is no number."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x, mask):
        return torch.softmax(self.layer(x).masked_fill(mask, -torch.inf), -1)


def test_masks_that_cannot_be_anything_are_held(tmp_path):
    torch.manual_seed(0)
    mask = torch.zeros(16, 4, dtype=torch.bool)
    mask[3:, 3] = True
    path, inputs = tmp_path / "model.onnx", (torch.randn(16, 4), mask)
    model = prepared(Attention(), QATConfig(), inputs)
    export_onnx(model, inputs, path)
    _, many, _ = receipt_of(path)["samples"]
    assert [(entry["low"], entry["high"]) for entry in many["inputs"]][1] == (0, 0)
    assert check(path).holds


def test_a_file_of_one_size_is_asked_that_size(tmp_path):
    path, x = tmp_path / "model.onnx", torch.randn(3, 8)
    export_onnx(prepared(nn.Sequential(nn.Linear(8, 4)), QATConfig(), x), x, path, dynamic_batch=False)
    assert [sample["inputs"][0]["shape"] for sample in receipt_of(path)["samples"]] == [[3, 8], [3, 8]]
    assert check(path).holds
