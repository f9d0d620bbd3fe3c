"""What action masks forbid."""

import numpy as np
import pytest
import torch

from textenv.action_masks import allowed_tokens
from textenv.env import TextEnv
from textenv.tasks.base import prompts_of


def names(language_model, allowed):
    return language_model.tokenizer.convert_ids_to_tokens(np.flatnonzero(allowed).tolist())


def test_padding_is_forbidden_on_exact():
    env = TextEnv("exact")
    masks = env.action_masks()
    assert masks.dtype == np.bool_
    assert names(env.reference, masks) == ["<eos>", "a", "b", "c", "d", "e"]


def test_no_special_token_but_the_end_is_left_on_concierge():
    """The two that the chat is made of are special by being added as such, and have no name in the tokenizer."""
    env = TextEnv("concierge")
    masks = env.action_masks()
    assert masks.shape == (env.reference.vocab_size,)
    forbidden = names(env.reference, ~masks)
    assert forbidden == ["<pad>", "<bos>", "<unk>", "<user>", "<assistant>"]
    assert masks[env.eos_id]


@pytest.mark.parametrize(
    ("name", "forbidden"), [("gpt2", []), ("llama", ["<unk>", "<s>"]), ("unigram", ["<pad>", "<unk>"])]
)
def test_any_tokenizer(tiny_models, name, forbidden):
    """Where padding and end are one token, it is allowed."""
    language_model = tiny_models[name]
    allowed = allowed_tokens(language_model)
    assert names(language_model, ~allowed) == forbidden
    assert allowed[language_model.eos_id]


def test_ids_beyond_the_vocabulary_are_forbidden(make_model):
    language_model = make_model("llama")
    size = len(language_model.tokenizer)
    language_model.model.resize_token_embeddings(size + 5)
    allowed = allowed_tokens(language_model)
    assert len(allowed) == size + 5
    assert not allowed[size:].any()
    assert allowed[:size].sum() == size - 2


def test_what_the_reference_says_is_allowed():
    env = TextEnv("concierge")
    prompts = prompts_of(env.task, env.task.sample_prompts("train", 8, np.random.default_rng(0)))
    sample = env.reference.sample(prompts, max_tokens=16, group_size=8, generator=torch.Generator().manual_seed(0))
    tokens = sample.responses.ids[sample.responses.mask].numpy()
    assert env.action_masks()[tokens].mean() > 0.999
