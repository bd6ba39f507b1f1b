"""A prepared model in a folder: its tensors as safetensors, its config as JSON beside them."""

import json
import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from export.read.files import FileError
from qat_core import QATConfig, prepare

WEIGHTS, CONFIG = "model.safetensors", "qat_config.json"


def save_checkpoint(model: nn.Module, config: QATConfig, folder: str | os.PathLike[str]) -> None:
    """Write a prepared model, each file whole or not at all; tied tensors are stored once.

    Raises:
        FileError: the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as beside:
            save_model(model, os.path.join(beside, WEIGHTS))
            Path(beside, CONFIG).write_text(json.dumps(config.as_dict(), indent=2) + "\n")
            for name in (WEIGHTS, CONFIG):
                os.replace(os.path.join(beside, name), folder / name)
    except OSError as error:
        raise FileError(f"cannot write {folder}: {error.strerror or error}") from error


def load_checkpoint(model: nn.Module, folder: str | os.PathLike[str]) -> tuple[nn.Module, QATConfig]:
    """The prepared model that `save_checkpoint` wrote, and its config.

    Args:
        model: an FP32 model of the same architecture; it is left alone.
        folder: where the checkpoint lies.

    Raises:
        FileError: a file is missing or damaged, or the checkpoint is of another architecture.
    """
    folder = Path(folder)
    try:
        config = QATConfig.from_dict(json.loads((folder / CONFIG).read_text()))
        stored = load_file(folder / WEIGHTS)
        prepared = prepare(model, config, fold=_is_folded(stored, model))
        prepared.load_state_dict(_with_tied_names(stored, prepared))
    except OSError as error:
        raise FileError(f"cannot read {folder}: {error.strerror or error}") from error
    except (ValueError, SafetensorError, RuntimeError) as error:
        raise FileError(f"{folder} does not hold a checkpoint of this model: {error}") from error
    return prepared, config


def _is_folded(stored: dict[str, Tensor], model: nn.Module) -> bool:
    """Does the file have no statistics for a BatchNorm of the model?"""
    statistics = [
        f"{name}.running_mean" if name else "running_mean"
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    return any(name not in stored for name in statistics)


def _with_tied_names(stored: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A file keeps a tied tensor under one of its names; a state_dict has it under all."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return {
        name: stored[kept] for group in names.values() for kept in group if kept in stored for name in group
    } | stored
