"""The tables. A section says what there is to measure, measures one piece of it, and draws the table."""

from types import ModuleType

from benchmarks.sections import accuracy, digits, export, files, large, latency, memory, parity, runtimes, speed

SECTIONS: dict[str, ModuleType] = {
    "accuracy": accuracy,
    "digits": digits,
    "speed": speed,
    "memory": memory,
    "parity": parity,
    "runtimes": runtimes,
    "export": export,
    "large": large,
    "latency": latency,
    "files": files,
}
