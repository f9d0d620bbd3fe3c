"""Trains the embedded language models: echo and drill, then the internet, then demonstrations or all of the world.

Looking a fact up in the prompt is what is hard to learn, so texts that need nothing else come
first: random words repeated, then facts recited and asked for many times in one text. The full
mixtures then set the probabilities right, again with several requests on the same facts in a text.

The matrices inside the layers are trained by Muon: in a trial of 6,400 texts the drill ended with 0.97 of the
held-out facts right after an honest opening, with AdamW alone at 0.52.

The world model goes on from the pretrained one, which can look things up, with the words and texts of the other
tasks: again what is hard first, good responses only, and then the full mixtures. It learns responses, not prompts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from textenv.language_model import LanguageModel
from textenv.muon import MuonAdamW
from textenv.world import sentences as s
from textenv.world.corpus import (
    Document,
    sample_conversation,
    sample_drill,
    sample_echo,
    sample_exemplary_text,
    sample_world_text,
)
from textenv.world.grammar import DEMONSTRATIONS, INTERNET
from textenv.world.vocabulary import WORDS, encode

Progress = Callable[[str, int, int, float], None]
"""Called with the phase, documents done, documents in all, and the loss in nats a token."""


@dataclass(frozen=True)
class PretrainingConfig:
    """How the embedded language models are made."""

    hidden_size: int = 160
    """Width of the model."""
    layers: int = 3
    """Transformer layers."""
    heads: int = 5
    """Attention heads."""
    mlp_size: int = 448
    """Width of the gated MLP."""
    echo_documents: int = 3_200
    """Texts of random words, repeated."""
    drill_documents: int = 9_600
    """Texts with the same facts recited, or asked for many times."""
    internet_documents: int = 32_000
    """Conversations of the internet mixture; the pretrained model is saved after them."""
    demonstration_documents: int = 32_000
    """Conversations of the demonstrations; the supervised model is saved after them."""
    exemplary_documents: int = 40_000
    """Prompts of all tasks with good responses only, from which what to look up is learned soonest."""
    exemplary_best_of: int = 16
    """Of so many responses the best makes an exemplary text."""
    world_documents: int = 64_000
    """Texts of all tasks with several responses each; the world model is saved after them."""
    batch: int = 16
    """Documents a step."""
    world_batch: int = 32
    """The same for the world's texts, which are half as long."""
    learning_rate: float = 2e-3
    """AdamW's peak rate in echo and drill; Muon's is twice as high in every phase."""
    internet_learning_rate: float = 1.5e-3
    """AdamW's peak rate on the internet."""
    demonstration_learning_rate: float = 1e-3
    """AdamW's peak rate on the demonstrations."""
    exemplary_learning_rate: float = 2e-3
    """AdamW's peak rate on the exemplary texts."""
    world_learning_rate: float = 1e-3
    """AdamW's peak rate on the world's texts."""
    seed: int = 0
    """Seed of the weights and the texts."""


def build_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a word, the special ones among them; texts are words between single spaces."""
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=s.UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(s.SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=s.PAD, eos_token=s.EOS, bos_token=s.BOS, unk_token=s.UNK
    )


def build_model(config: PretrainingConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of the configured size with weights drawn from the seed."""
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.mlp_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attention_dropout=0.0,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return LlamaForCausalLM(llama)


def pretrain(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, config: PretrainingConfig, progress: Progress
) -> Iterator[LanguageModel]:
    """Trains the model; yields it after the internet (pretrained) and after the demonstrations (supervised)."""
    rng = np.random.default_rng(config.seed)

    def phase(name: str, documents: int, rate: float, text: Callable[[], list[str]], *, decay: bool = True) -> None:
        _train(model, lambda: Document(text()), Phase(name, documents, config.batch, rate, decay), progress)

    phase("echo", config.echo_documents, config.learning_rate, lambda: sample_echo(rng), decay=False)
    phase("drill", config.drill_documents, config.learning_rate, lambda: sample_drill(rng))
    rate = config.internet_learning_rate
    phase("internet", config.internet_documents, rate, lambda: sample_conversation(rng, INTERNET))
    yield LanguageModel("concierge-pretrained", model, tokenizer)
    rate = config.demonstration_learning_rate
    phase("demonstrations", config.demonstration_documents, rate, lambda: sample_conversation(rng, DEMONSTRATIONS))
    yield LanguageModel("concierge", model, tokenizer)


def train_world(pretrained: LanguageModel, config: PretrainingConfig, progress: Progress) -> LanguageModel:
    """The model of all tasks, from the pretrained one, whose words keep their ids."""
    model = _with_new_words(pretrained.model, config.seed)
    for index, (phase, text) in enumerate(_world_phases(config)):
        rng = np.random.default_rng((config.seed, index))
        _train(model, partial(text, rng), phase, progress)
    return LanguageModel("world", model, build_tokenizer(WORDS))


def _with_new_words(pretrained: PreTrainedModel, seed: int) -> PreTrainedModel:
    """A copy that knows all words of the world; the new ones are as long as the old, or they would learn slowly."""
    model = copy.deepcopy(pretrained).requires_grad_(True)
    old = model.config.vocab_size
    model.resize_token_embeddings(len(WORDS), mean_resizing=False)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        assert isinstance(embeddings, torch.Tensor)
        spread = float(embeddings[:old].std())
        embeddings[old:].normal_(0.0, spread, generator=torch.Generator().manual_seed(seed))
    return model


def _world_phases(config: PretrainingConfig) -> list[tuple[Phase, Callable[[np.random.Generator], Document]]]:
    """Good responses first, then the full mixtures."""
    batch = config.world_batch
    exemplary = partial(sample_exemplary_text, best_of=config.exemplary_best_of)
    return [
        (Phase("exemplary texts", config.exemplary_documents, batch, config.exemplary_learning_rate), exemplary),
        (Phase("world", config.world_documents, batch, config.world_learning_rate), sample_world_text),
    ]


class Phase(NamedTuple):
    """One stretch of training on one kind of text."""

    name: str
    documents: int
    batch: int
    learning_rate: float
    """Peak rate."""
    decay: bool = True
    """Whether the rate falls to 2% along a half cosine; without, it stays at the peak."""


def _train(model: PreTrainedModel, document: Callable[[], Document], phase: Phase, progress: Progress) -> None:
    """Next-token cross-entropy on fresh documents, after a short warm-up."""
    optimizer = MuonAdamW(model, weight_decay=0.01)
    steps = phase.documents // phase.batch
    pad_id = s.words().index(s.PAD)
    warmup = min(200, steps // 10 + 1)
    model.train()
    recent = float("nan")
    for step, batch in enumerate(_batches(document, steps, phase.batch)):
        done = max(0, step - warmup) / max(1, steps - warmup)
        fraction = 0.02 + 0.49 * (1 + math.cos(math.pi * done)) if phase.decay else 1.0
        loss = document_loss(model, batch, pad_id)
        optimizer.step(loss, phase.learning_rate * min((step + 1) / warmup, fraction), max_grad_norm=1.0)
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if step % 20 == 19 or step + 1 == steps:
            progress(phase.name, (step + 1) * phase.batch, phase.documents, recent)
    model.eval()


def _batches(document: Callable[[], Document], steps: int, batch_size: int, pool: int = 8) -> Iterator[list[Document]]:
    """Batches of documents of similar length, so that little is computed on padding."""
    done = 0
    while done < steps:
        count = min(pool, steps - done)
        documents = sorted((document() for _ in range(count * batch_size)), key=lambda each: len(each.words))
        # An order that is neither growing nor shrinking within the pool, without another draw.
        for index in sorted(range(count), key=lambda i: (i * 5) % pool):
            yield documents[index * batch_size : (index + 1) * batch_size]
        done += count


def document_loss(model: PreTrainedModel, documents: Sequence[Document], pad_id: int) -> torch.Tensor:
    """Mean cross-entropy of the tokens after those that are given, in nats."""
    width = max(len(document.words) for document in documents)
    input_ids = torch.full((len(documents), width), pad_id)
    for row, document in enumerate(documents):
        input_ids[row, : len(document.words)] = torch.tensor(encode(document.words))
    lengths = torch.tensor([len(document.words) for document in documents])
    given = torch.tensor([document.given for document in documents])
    place = torch.arange(1, width)
    learned = (place >= given[:, None]) & (place < lengths[:, None])
    # Right padding under a causal mask: no real token ever sees a padding one.
    logits = model(input_ids=input_ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[learned], input_ids[:, 1:][learned])
