"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): a policy that trains a few weights beside frozen ones.

The frozen weights are the reference's own tensors, not copies of them, so that policy and reference together take
little more memory than the reference alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from textenv.errors import UsageError, unknown_name
from textenv.language_model import LanguageModel

if TYPE_CHECKING:
    from peft import LoraConfig

ALL = "all-linear"
"""Every linear layer but the one that makes the logits."""


@dataclass(frozen=True)
class Lora:
    """Which layers get adapters, and what those are."""

    rank: int
    """Of each adapter's two matrices."""
    alpha: float
    """Adapters weigh alpha / rank."""
    modules: str = ALL
    """Names of linear layers with commas between them, or all-linear."""


def with_adapters(language_model: LanguageModel, lora: Lora, generator: torch.Generator) -> LanguageModel:
    """A model that shares the weights of another one, frozen, and has adapters that change nothing as yet.

    Args:
        language_model: stays as it is.
        lora: the adapters.
        generator: draws their first matrices; the second ones begin at 0.

    Raises:
        UsageError: the model has no such modules, or peft is not installed.
    """
    from peft import inject_adapter_in_model

    config = _peft_config(language_model, lora)
    shared = {id(tensor): tensor for tensor in (*language_model.model.parameters(), *language_model.model.buffers())}
    model = copy.deepcopy(language_model.model, shared)
    with torch.random.fork_rng():  # peft draws from the global state; what it draws is drawn again below.
        inject_adapter_in_model(config, model)
    for name, weight in model.named_parameters():
        if ".lora_A." in name:
            nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
    return replace(language_model, model=model)


def check_modules(language_model: LanguageModel, lora: Lora) -> None:
    """Refuses names of modules that a model lacks or that cannot have adapters.

    Raises:
        UsageError: names them and those that there are, or peft is not installed.
    """
    _peft_config(language_model, lora)


def _peft_config(language_model: LanguageModel, lora: Lora) -> LoraConfig:
    try:
        from peft import LoraConfig
    except ImportError:
        raise UsageError(
            'lora_rank needs peft; install it with pip install ".[lora]", or leave lora_rank out'
        ) from None
    from transformers.pytorch_utils import Conv1D

    head: Any = language_model.model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]: isinstance(module, Conv1D)
        for name, module in language_model.model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    asked = list(linear) if lora.modules == ALL else [name.strip() for name in lora.modules.split(",")]
    for name in asked:
        if name not in linear:
            raise UsageError(
                f"{unknown_name(f'linear layer of {language_model.name!r} for lora_modules', name, sorted(linear))} "
                f"{ALL} takes them all."
            )
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # A float does as well.
        target_modules=asked,
        # GPT-2's layers hold their weights the other way round.
        fan_in_fan_out=any(linear[name] for name in asked),
    )
