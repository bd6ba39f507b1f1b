"""`python -m app`: serve the page. A Space runs this very file as its app_file."""

import argparse
import contextlib
import importlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # run by path, Python starts looking in app/
    sys.path.insert(0, str(ROOT))


class Parser(argparse.ArgumentParser):
    """Answers a wrong flag with one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Check the address, then build the page and serve it until it is interrupted."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    host, port = arguments.host, arguments.port
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        parser.error(f"cannot listen on {host}, port {port}: {error.strerror}; try another --host or --port")
    os.environ["GRADIO_SERVER_PORT"] = str(port)  # Gradio reads it too, without a check
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    print("Starting: torch and Gradio take some seconds to load.", flush=True)
    from app import heap

    heap.share()
    with contextlib.suppress(ImportError):
        importlib.import_module("spaces")  # ZeroGPU wants to be there before torch

    from app.ui import serve

    serve(host, port)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m app", description="Quantization-aware training, step by step, in your browser.")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), help="%(default)s")
    parser.add_argument("--port", default=os.environ.get("GRADIO_SERVER_PORT", "7860"), type=port_number, help="7860")
    return parser


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"port={text!r}; expected a whole number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    main()
