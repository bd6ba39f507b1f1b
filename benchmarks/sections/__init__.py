"""The tables. A section says what there is to measure, measures one piece of it, and draws the table."""

from types import ModuleType

from benchmarks.sections import (
    accuracy,
    auto,
    digits,
    encoder,
    export,
    files,
    large,
    latency,
    memory,
    parity,
    runtimes,
    speed,
    tasks,
)

SECTIONS: dict[str, ModuleType] = {
    "accuracy": accuracy,
    "tasks": tasks,
    "digits": digits,
    "speed": speed,
    "memory": memory,
    "parity": parity,
    "runtimes": runtimes,
    "export": export,
    "large": large,
    "latency": latency,
    "auto": auto,
    "encoder": encoder,
    "files": files,
}
