"""The README is run: its code answers, and what it names is there."""

import re
from pathlib import Path

import onnx
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert onnx.load(tmp_path / "sine.onnx").graph.node


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_the_space_finds_its_page():
    front = yaml.safe_load(README.split("---")[1])
    assert (ROOT / front["app_file"]).exists()
    assert front["sdk"] == "gradio"
    assert f"gradio=={front['sdk_version']}\n" in (ROOT / "constraints.txt").read_text()
    assert len(front["short_description"]) <= 60
