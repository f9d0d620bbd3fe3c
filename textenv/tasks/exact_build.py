"""Builds the checkpoint of Exact-v0: `python -m textenv.tasks.exact_build FOLDER`, a second's work.

The reference is a Llama of 83,000 parameters with random weights, scaled until its distribution is
far from uniform; no training is needed, since the task only asks that it be fixed and not flat.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from textenv import enumeration
from textenv.language_model import LanguageModel
from textenv.responses import Prompts
from textenv.tasks.exact import EOS, PAD, PROMPTS, VOCABULARY, WEIGHTS, Exact, attributes_of

SEED = 5
LOGIT_SCALE = 1.2
"""Standard deviation of the logits over tokens and contexts: a perplexity of about 4 of 7."""


def build(folder: Path) -> None:
    """Writes the reference model, its tokenizer and `truth.json`, the same at every call."""
    tokenizer = build_tokenizer()
    language_model = LanguageModel("exact", build_model(), tokenizer)
    language_model.save(folder)
    truth = {"score_deviation": score_deviation(language_model)}
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


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
        # The last norm gives features of size 1, so the head's scale is that of the logits.
        model.lm_head.weight.mul_(LOGIT_SCALE)
    model.eval()
    model.requires_grad_(False)
    return model


def score_deviation(reference: LanguageModel) -> float:
    """Square root of the mean over prompts of the gold score's variance under the reference."""
    prompts = Prompts.from_lists(reference.tokenizer(list(PROMPTS))["input_ids"], reference.pad_id)
    tokens = Exact.response_length
    tree = enumeration.next_token_tree(reference, prompts, tokens)
    probs = enumeration.response_logprobs(tree, reference.eos_id).double().exp()
    responses = enumeration.all_responses(
        prompts, vocab_size=reference.vocab_size, max_tokens=tokens, eos_id=reference.eos_id, pad_id=reference.pad_id
    )
    scores = (attributes_of(responses) @ torch.tensor(WEIGHTS)).double().reshape(probs.shape)
    mean = (probs * scores).sum(dim=1, keepdim=True)
    variance = (probs * (scores - mean).square()).sum(dim=1)
    return float(variance.mean().sqrt())


if __name__ == "__main__":
    build(Path(sys.argv[1]))
