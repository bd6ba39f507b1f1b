"""Points of your own: what a CSV file may look like, and the network that is fitted to them."""

import json
import math
import re

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.lab.__main__ import main
from app.lab.fit import MODELS, Experiment, Settings
from app.lab.points import MOST_BYTES, load_csv, parse_csv, read_csv

FOUR = ((0.0, 1.0), (1.0, 2.5), (2.0, -3.0), (3.0, 0.0))


@pytest.mark.parametrize(
    "text",
    [
        "0,1\n1,2.5\n2,-3\n3,0\n",
        "x,y\n0,1\n1,2.5\n2,-3\n3,0",
        '"time, s","volts"\r\n0,1\r\n1,2.5\r\n2,-3\r\n3,0\r\n',
        "\ufeffx;y\n0;1\n1;2,5\n2;-3\n3;0\n",
        "x\ty\n0\t1\n1\t2,5\n2\t-3\n3\t0\n",
        "  0  1\n 1 2.5 \n\n2   -3\n3 0\n",
        "\n\n0, 1\n1, 2.5\n\n2, -3,\n3, 0,,\n,\n",
        '"0","1"\n"1","2.5"\n"2","-3e0"\n"+3",".0"\n',
    ],
)
def test_the_usual_forms_are_read(text):
    assert parse_csv(text.encode(), "a.csv") == FOUR


@pytest.mark.parametrize(
    ("text", "columns", "note"),
    [
        ("sep=;\nx;y\n0;1\n1;2,5\n2;-3\n3;0\n", None, ""),
        ("# made by hand\nx,y\n0,1\n1,2.5\n# later\n2,-3\n3,0\n", None, ""),
        ("x,y\n0,1\n1,2.5\n1.5,\n2,-3\n,\n3,0\n", None, "1 line with a blank cell left out"),
        ("x,y,z\n0,1,9\n1,2.5,9\n2,-3,\n3,0,9\n", None, "x is 'x' and y is 'y'"),
        ("z,x,y\n9,0,1\n9,1,2.5\n,2,-3\n9,3,0\n", ("x", "3"), "x is 'x' and y is 'y'"),
        ("name,x,y\na,0,1\nb,1,2.5\nc,2,-3\nd,3,0\n", None, "x is 'x' and y is 'y'"),
        ("2024-02-28,1\n2024-02-29,2.5\n2024-03-01,-3\n2024-03-02,0", None, "x is days since 2024-02-28"),
        ("2024/02/28 06:00,1\n2024/02/29 06:00,2.5\n2024/03/01 06:00,-3\n2024/03/02 06:00,0", None, "x is days since"),
    ],
)
def test_what_spreadsheets_and_instruments_write_is_read_and_said(text, columns, note):
    reading = read_csv(text.encode(), "a.csv", columns)
    assert reading.points == FOUR
    assert reading.note.startswith(note)
    assert bool(reading.note) == bool(note)


def test_too_many_points_are_thinned_and_it_is_said():
    reading = read_csv("".join(f"{n},1\n" for n in range(5000)).encode(), "a.csv")
    assert len(reading.points) == 2000
    assert reading.points[::1000] == ((0.0, 1.0), (2500.0, 1.0))
    assert reading.note == "2,000 of 5,000 points kept, evenly spread over the file"


def test_a_column_that_is_not_there_gets_a_sentence():
    for wanted in ("w", "0", "3", "", "-1"):
        with pytest.raises(ValueError, match=r"a\.csv has no column '.*'; expected one of x, y"):
            read_csv(b"x,y\n0,1\n", "a.csv", (wanted, "y"))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "a.csv is empty; expected two columns of numbers, x and y"),
        (b"\n \n", "a.csv has only blank lines; expected two columns"),
        (b"0,1\n1,two\n2,3\n", "a.csv, line 2: y='two' is not a number; expected two columns"),
        (b"x,1\n1,2\n", "a.csv, line 1: x='x' is not a number"),
        (b"x,y\n\n1,\n", "a.csv: 0 points; expected from 4"),
        (b"2024-13-01,1\n2024-01-02,2\n", "a.csv, line 1: x='2024-13-01' is no day of the calendar"),
        (b"2024-01-01,1\n2,2\n", "1 of 2 x are dates, the others are not"),
        (b"sep=;\n# nothing\n", "a.csv: 0 points; expected from 4"),
        (b"0,1\n1,nan\n", "a.csv, line 2: y='nan'; expected a finite number"),
        (b"-inf,1\n1,2\n", "a.csv, line 1: x='-inf'; expected a finite number"),
        (b"0,1\n1,1e300\n", "a.csv, line 2: y='1e300'; expected a finite number of at most 1e+30"),
        (b"1_0,1\n1,2\n", "a.csv, line 1: x='1_0' is not a number"),
        (b"0,1\n", "a.csv: 1 point; expected from 4 to 2,000"),
        (b"x,y\n", "a.csv: 0 points; expected from 4 to 2,000"),
        (b"1\n2\n3\n", "a.csv, line 1 has 1 column, ['1']; expected two columns"),
        (b"a,b,c\n", "a.csv: 0 points; expected from 4"),
        (b"a,1,c\n", "a.csv, line 1: 1 column of numbers; expected two columns"),
        (b"0|1\n2|3\n", "a.csv, line 1 has 1 column, ['0|1']"),
        (b"0,1\n1;2\n", "a.csv, line 2 has 1 column, ['1;2']"),
        (b"2,1\n2,2\n2,3\n2,4\n", "a.csv: every x is 2; expected at least two that differ"),
        (b"1e9,1\n1000000001,2\n1000000002,3\n1000000003,4", "expected a range of at least 100000, since float32"),
        (b"\x89PNG\r\n\x1a\n\0\0", "a.csv is binary: byte 9 is zero; expected CSV text"),
        (b"PK\x03\x04\x14\0", "a.csv is a zip archive, as spreadsheets are"),
        ("x,y\n0,1\n".encode("utf-16"), "a.csv is UTF-16 text; expected UTF-8"),
        (
            "größe,y\n0,1\n".encode("latin-1"),
            "a.csv is not UTF-8 text: byte 3 is 0xf6; expected CSV text in UTF-8: save it again",
        ),
        (b'"0,1\n1,2\n', "a.csv, line 2: unexpected end of data"),
        (b"0," + b"9" * 200 + b"\n", "y='99999999"),
        (b"{" * (MOST_BYTES + 1), "a.csv has 1,000,001 bytes; expected at most 1,000,000"),
    ],
)
def test_what_is_not_points_gets_a_sentence(data, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        parse_csv(data, "a.csv")
    assert len(str(refused.value)) < 260


@given(st.binary(max_size=80) | st.text(alphabet='0123456789.,;\t "-+eainf_\nxy', max_size=80).map(str.encode))
def test_whatever_the_file_holds_the_answer_is_points_or_a_sentence(data):
    answer = points_or_sentence(data)
    if isinstance(answer, str):
        assert answer.startswith("a.csv")
        assert "expected" in answer
    else:
        assert len(answer) >= 4
        assert all(math.isfinite(v) for point in answer for v in point)


def points_or_sentence(data):
    try:
        return parse_csv(data, "a.csv")
    except ValueError as error:
        return str(error)


numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.tuples(numbers, numbers), min_size=4, max_size=30), st.sampled_from([",", ";", "\t", " "]))
def test_what_was_written_is_read(points, separator):
    xs = [x for x, _ in points]
    if max(xs) - min(xs) < 1e-3 * max(1.0, max(map(abs, xs))):
        return
    text = "\n".join(f"{x!r}{separator}{y!r}" for x, y in points)
    assert parse_csv(text.encode(), "a.csv") == tuple(points)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    path.chmod(0)  # reading it would fail, were we not root
    with pytest.raises(ValueError, match=r"huge\.csv has 100,000,000 bytes; expected at most 1,000,000"):
        load_csv(path)


def curve(xs, ys, **changes):
    return Settings.of("points", points=tuple(zip(xs, ys, strict=True)), **changes)


def test_the_network_answers_in_the_units_of_the_data():
    xs = np.linspace(1900, 2000, 64)
    ys = 5e6 + 1e6 * np.sin(xs / 8)
    experiment = Experiment(curve(xs.tolist(), ys.tolist(), steps=600, granularity="per_channel"), "cpu")
    (record,) = experiment.run(every=600)
    assert set(record.metrics) == {"mse_train"}
    for name in ("fp32", "qat"):
        assert math.sqrt(record.mse_train[name]) < 0.1e6
        assert len(record.curves[name]) == 128
    assert math.sqrt(record.mse_train["ptq"]) > 2 * math.sqrt(record.mse_train["qat"])


@pytest.mark.parametrize("ys", [[7.0] * 8, [0.0] * 8, [1e-30] * 8, [1e30, -1e30] * 4, [1e8, 1e8 + 8] * 4])
def test_extreme_ys_are_fitted_without_a_nan(ys):
    experiment = Experiment(curve([float(n) for n in range(8)], ys, steps=20), "cpu")
    (record,) = experiment.run(every=20)
    assert all(math.isfinite(record.metrics["mse_train"][name]) or max(ys) > 1e18 for name in MODELS)
    assert all(math.isfinite(y) for y in record.curves["qat"])


def test_a_pause_keeps_the_points():
    settings = curve([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, 1.0], steps=20)
    whole, first = Experiment(settings, "cpu"), Experiment(settings, "cpu")
    expected = list(whole.run(every=5))
    records = list(first.run(every=5, until=10))
    records += Experiment.restore(first.snapshot(), "cpu").run(every=5)
    assert records == expected


def test_settings_with_points_are_frozen_and_hashable():
    one, same, other = (curve([0.0, 1.0, 2.0, last], [0.0, 1.0, 0.0, 1.0]) for last in (3.0, 3.0, 4.0))
    assert one == same != other
    assert hash(one) == hash(same)
    with pytest.raises(ValueError, match="points for task='sine'; expected none"):
        Settings(points=((0.0, 1.0),))
    with pytest.raises(ValueError, match="0 points; expected from 4"):
        Settings(task="points")


def test_the_terminal_reads_a_csv(capsys, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("x;y\n" + "\n".join(f"{n};{n % 4}" for n in range(20)))
    out = tmp_path / "out"
    assert main(["--csv", str(path), "--steps", "30", "--device", "cpu", "--json", "--out", str(out)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["config"]["task"] == "points"
    assert "points" not in result["config"]
    assert set(result["qat"]) == {"mse_train"}
    assert result["parity"]["ok"]
    assert sorted(file.name for file in out.iterdir()) == ["fit.png", "model.onnx", "parity.json"]
    (answer,) = ort.InferenceSession(result["onnx"]["path"]).run(None, {"input": torch.zeros(3, 1).numpy()})
    assert answer.shape == (3, 1)


@pytest.mark.parametrize(("text", "sentence"), [("0,one\n", "line 1: y='one'"), (None, "No such file")])
def test_the_terminal_says_what_is_wrong_with_a_csv(capsys, tmp_path, text, sentence):
    path = tmp_path / "mine.csv"
    if text:
        path.write_text(text)
    assert main(["--csv", str(path), "--out", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_terminal_says_what_it_replaces_and_leaves_nothing_of_another_network(capsys, tmp_path):
    path, out = tmp_path / "mine.csv", tmp_path / "out"
    path.write_text("t,x,y\n" + "\n".join(f"{n},{n},{n % 4}" for n in range(20)))
    out.mkdir()
    for name in ("model.onnx", "qat_success.png", "notes.txt"):
        (out / name).write_text("of before")
    arguments = ["--csv", str(path), "--columns", "x,3", "--steps", "2", "--device", "cpu", "--json", "--out", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "mine.csv: x is 'x' and y is 'y'." in said
    assert "model.onnx, qat_success.png of an earlier run will be replaced." in said
    assert sorted(file.name for file in out.iterdir()) == ["fit.png", "model.onnx", "notes.txt", "parity.json"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--columns", "x,y"], "--columns x,y without --csv; expected both, or neither"),
        (["--csv", "mine.csv", "--columns", "x"], "--columns x; expected two names or numbers"),
        (["--seed", "1.5"], "--seed: '1.5'; expected a whole number; --help lists"),
        (["--noise", "loud"], "--noise: 'loud'; expected a number; --help lists"),
        (["--bits"], "--bits: expected one argument; --help lists"),
        (["--colour", "red"], "unrecognized arguments: --colour red; --help lists"),
    ],
)
def test_a_wrong_command_line_gets_one_sentence(capsys, arguments, sentence):
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert sentence in said
