"""An agent's state on disk: tensors in one safetensors file, everything else in one JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from textenv.errors import UsageError
from textenv.files import atomic_folder

TENSORS = "state.safetensors"
SCALARS = "agent.json"


class Checkpoint(NamedTuple):
    """What `save` wrote and `load` reads."""

    tensors: dict[str, Tensor]
    scalars: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the folder whole or not at all."""
    with atomic_folder(path) as folder:
        save_file({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}, folder / TENSORS)
        (folder / SCALARS).write_text(json.dumps(checkpoint.scalars, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> Checkpoint:
    """Reads a folder that `save` wrote.

    Raises:
        UsageError: it is no such folder, or is damaged.
    """
    try:
        scalars = json.loads((path / SCALARS).read_text(encoding="utf-8"))
        return Checkpoint(load_file(path / TENSORS), scalars)
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(
            f"{path} is not a saved agent ({error}); expected a folder with {TENSORS} and {SCALARS}"
        ) from error


def module_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The parameters by name; a tied one appears once, and one that is frozen not at all."""
    return {
        f"{prefix}.{name}": parameter.detach()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def restore_module(module: nn.Module, prefix: str, tensors: dict[str, Tensor]) -> None:
    """Copies saved parameters into a module.

    Raises:
        UsageError: names or shapes are not those of the module.
    """
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    saved = _without_prefix(tensors, prefix)
    if {name: tensor.shape for name, tensor in saved.items()} != {name: p.shape for name, p in parameters.items()}:
        raise UsageError(
            "the saved weights do not fit this environment's reference model; "
            "load the agent with the reference that it was trained from"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The optimiser's state (steps and moments) by parameter name; empty before its first step."""
    return {
        f"{prefix}.{key}.{name}": value
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, prefix: str, tensors: dict[str, Tensor]
) -> None:
    """Gives an optimiser of the module's parameters the state that was saved."""
    # The keys of an optimiser's state hold no dots, parameter names do.
    for full_name, tensor in _without_prefix(tensors, prefix).items():
        key, _, name = full_name.partition(".")
        optimizer.state[module.get_parameter(name)][key] = tensor.clone()


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
