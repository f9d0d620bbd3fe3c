"""Tiny models with the kinds of tokenizers that there are, trained here on a few lines."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from textenv import linear
from textenv.language_model import LanguageModel
from textenv.tasks.text import TextTask

CORPUS = ["the cat sat on the mat", "a dog sat on a log", "Zürich is a city", "the city has a cat", "12 dogs, 3 cats!"]


def gpt2():
    """Byte-level BPE, no padding token, no special tokens before a text: as GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_embd=16, n_layer=1, n_head=2, n_positions=64,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config), PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def llama():
    """SentencePiece-like BPE with "▁" for spaces and byte fallback, <s> before each text: as Llama 2."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The bytes are ordinary tokens and not special ones, as SentencePiece has them.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _llama_model(tokenizer), PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def unigram():
    """SentencePiece-like Unigram with "▁" before each word, a padding token of its own: as T5."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<pad>", "<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _llama_model(tokenizer), PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )


def _llama_model(tokenizer):
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


MAKERS = {maker.__name__: maker for maker in (gpt2, llama, unigram)}


def make(name):
    """A model of its own, whose tokenizer a test may change."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, tokenizer = MAKERS[name]()
    return LanguageModel(name, model.eval().requires_grad_(False), tokenizer)


@pytest.fixture(scope="session")
def make_model():
    return make


@pytest.fixture(scope="session")
def tiny_models():
    """One of each kind by name: gpt2, llama, unigram."""
    return {name: make(name) for name in MAKERS}


@pytest.fixture(scope="session", params=MAKERS)
def language_model(request, tiny_models):
    return tiny_models[request.param]


@pytest.fixture(scope="session")
def tiny_task():
    """Makes a Text-v0 task of a few prompts and 8 response tokens."""

    def tiny_task(language_model, prompts, **settings):
        return TextTask.from_texts(prompts, language_model, **{"response_length": 8} | settings)

    return tiny_task


@pytest.fixture(scope="module", params=["mkl", "onednn"])
def either_library(request: pytest.FixtureRequest) -> Iterator[None]:
    """Linear layers as on either kind of processor, whichever this is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(linear, "onednn_is_faster", lambda: request.param == "onednn")
        patched.setattr(linear, "FEW", 1)
        yield
