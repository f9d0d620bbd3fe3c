"""Builds the checkpoint of Exact-v0: a Llama of 83,000 parameters fitted to a known distribution of answers.

It is fitted to `textenv.tasks.exact.written_answers` on all responses at once, to within 0.05 nats.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from textenv import enumeration
from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses
from textenv.tasks.exact import EOS, PAD, PROMPTS, VOCABULARY, WEIGHTS, Exact, attributes_of, written_answers

SEED = 5
STEPS = 200
LEARNING_RATE = 6e-3
"""Adam's step size at the start; it falls on a line to 0."""

Report = Callable[[str, int, int], None]


def build(folder: Path, report: Report) -> None:
    """Writes the reference model, its tokenizer and `truth.json`; same machine, same files."""
    tokenizer = build_tokenizer()
    reference = LanguageModel("exact", build_model(), tokenizer)
    fit(reference, report)
    reference.save(folder)
    truth = {"score_deviation": score_deviation(reference)}
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def fit(model: LanguageModel, report: Report) -> None:
    """Gradient descent on the cross-entropy of `written_answers`, summed over every response."""
    prompts = _prompts(model)
    probs = written_answers()[1].exp()
    parameters = list(model.model.requires_grad_(True).parameters())
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    for step in range(STEPS):
        tree = enumeration.next_token_tree(model, prompts, Exact.response_length)
        logprobs = enumeration.response_logprobs(tree, model.eos_id).double()
        loss = -(probs * logprobs).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        report("exact", step + 1, STEPS)
    model.model.requires_grad_(False)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, words between blanks."""
    vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=VOCABULARY[PAD]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=VOCABULARY[PAD], eos_token=VOCABULARY[EOS], padding_side="left"
    )


def build_model() -> LlamaForCausalLM:
    """A Llama whose random weights come from one generator, in evaluation mode."""
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=16,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0.0, module.in_features**-0.5, generator=generator)
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0.0, 1.0, generator=generator)
        # A small head starts near the uniform distribution, from where the fit comes closest.
        model.lm_head.weight.mul_(0.5)
    model.eval()
    model.requires_grad_(False)
    return model


def score_deviation(reference: LanguageModel) -> float:
    """Square root of the mean over prompts of the gold score's variance under the reference."""
    with torch.no_grad():
        tree = enumeration.next_token_tree(reference, _prompts(reference), Exact.response_length)
        probs = enumeration.response_logprobs(tree, reference.eos_id).double().exp()
    scores = (attributes_of(_responses(reference)) @ torch.tensor(WEIGHTS)).double().view(probs.shape)
    mean = (probs * scores).sum(dim=1, keepdim=True)
    return float((probs * (scores - mean).square()).sum(dim=1).mean().sqrt())


def _prompts(model: LanguageModel) -> Prompts:
    return Prompts.from_lists(model.tokenizer(list(PROMPTS))["input_ids"], model.pad_id)


def _responses(model: LanguageModel) -> Responses:
    return enumeration.all_responses(
        _prompts(model),
        vocab_size=model.vocab_size,
        max_tokens=Exact.response_length,
        eos_id=model.eos_id,
        pad_id=model.pad_id,
    )
