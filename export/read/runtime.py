"""Running an ONNX model in onnxruntime, the same way everywhere in this room."""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from export.read.files import FileError, Source, contents, file_bytes, first_line, save, tensor_bytes
from export.read.memory import give_back

LEVELS = {
    "disable_all": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

LARGE = 2**20  # bytes of a file: the memory that it takes to run then counts
NO_INTEGER_KERNELS = {"session.disable_quant_qdq": "1"}
IN_CPP = r"\[ONNXRuntimeError\] : \d+ : \w+ : |/\S+\.(?:cc|h):\d+ .*?\)( const| &&)?( \[with .*?\])?(?= \S)"


class InputsError(ValueError):
    """A file does not take these inputs; the message says what it takes."""


@dataclass(frozen=True)
class Setup:
    """How a session runs.

    Attributes:
        providers: execution providers, the preferred one first.
        threads: within an operator; 0 lets onnxruntime choose.
        config: session configuration entries, such as {"session.qdq_matmulnbits_accuracy_level": "1"}.
    """

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 1
    config: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"threads={self.threads!r}; expected 0, which lets onnxruntime choose, or more")
        missing = set(self.providers) - set(ort.get_available_providers())
        if missing or not self.providers:
            raise ValueError(
                f"providers={self.providers!r}: {sorted(missing) or 'none'} not available; expected some of "
                f"{', '.join(ort.get_available_providers())}"
            )


def session(
    model: Source | onnx.ModelProto, level: str = "all", setup: Setup | None = None, profile: Path | None = None
) -> ort.InferenceSession:
    """A session at a level of graph optimization, on one CPU thread unless `setup` says otherwise.

    Args:
        model: path of an ONNX file, its bytes, an open file, or the model itself.
        level: "disable_all", "basic", "extended" or "all", which is onnxruntime's default.
        setup: execution providers, threads, configuration.
        profile: where it keeps how long each operator takes, until `end_profiling`.
    """
    setup = setup or Setup()
    if not isinstance(model, onnx.ModelProto):
        return _session(model, level, setup, profile=profile)
    if tensor_bytes(model) < LARGE:
        return _session(model.SerializeToString(), level, setup, profile=profile)
    with tempfile.TemporaryDirectory() as folder:  # which a session reads without holding all its bytes
        file = Path(folder, "model.onnx")
        save(model, file)
        return _session(file, level, setup, profile=profile)


def optimized(model: Source, setup: Setup | None = None) -> onnx.ModelProto:
    """The graph that a default session makes of a model, without its large tensors."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "optimized.onnx")
        _session(model, "all", setup or Setup(), file)
        return onnx.load(file, load_external_data=False)


def _session(
    model: Source, level: str, setup: Setup, keep: Path | None = None, profile: Path | None = None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.intra_op_num_threads = setup.threads
    options.log_severity_level = 4  # what is wrong is raised; and it warns that an optimized graph suits one processor
    for key, value in setup.config.items():
        options.add_session_config_entry(key, value)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, os.fspath(profile)
    if keep:
        options.optimized_model_filepath = os.fspath(keep)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{keep.name}.data")
    source = os.fspath(model) if isinstance(model, str | os.PathLike) else contents(model)
    if file_bytes(source) > LARGE:
        give_back()
    try:
        return ort.InferenceSession(source, options, providers=list(setup.providers))
    except Exception as error:  # onnxruntime's own errors have no common type
        where = "the model" if isinstance(source, bytes) else source
        raise FileError(f"onnxruntime cannot load {where}: {plain(error)}") from error


def run(
    session: ort.InferenceSession, inputs: Sequence[NDArray[np.generic]], shrink: bool = False
) -> list[NDArray[np.generic]]:
    """The outputs for inputs given in the order of the graph's.

    Args:
        shrink: give back what the run took, which onnxruntime else keeps for the next: every weight in float, for one,
            once for each size of batch.

    Raises:
        InputsError: the file does not take them.
    """
    nodes = session.get_inputs()
    try:
        given = {node.name: value for node, value in zip(nodes, inputs, strict=True)}
        options = ort.RunOptions()
        if shrink:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        answers = session.run(None, given, options)
    except Exception as error:  # onnxruntime's own errors have no common type
        takes, gets = [(n.type, n.shape) for n in nodes], [(x.dtype.name, x.shape) for x in inputs]
        raise InputsError(f"the file takes {takes}, given {gets}: {plain(error)}") from error
    return [np.array(answer) for answer in answers]  # onnxruntime's own hold the memory of the whole session


def plain(error: Exception) -> str:
    """What an error of onnxruntime says, without its codes and the place in its source."""
    return re.sub(IN_CPP, "", first_line(error)).strip()
