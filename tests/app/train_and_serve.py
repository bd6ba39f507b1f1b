"""What test_page.py ends with a signal: a page on which a visitor trains without end."""

import sys
import threading
from dataclasses import replace

from app.lab.fit import Settings
from app.runs.progress import Progress
from app.runs.run import running
from app.ui import serve

at_work = threading.Event()


def train() -> None:
    with running("visitor") as run:
        for seed in range(2**31):
            for _ in Progress.start(replace(Settings(), seed=seed)).advance(is_wanted=run.is_wanted):
                at_work.set()
            if not run.is_wanted():
                return


if __name__ == "__main__":
    threading.Thread(target=train, daemon=True).start()
    at_work.wait()
    serve("127.0.0.1", int(sys.argv[1]))
