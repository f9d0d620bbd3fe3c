"""Decoders step by step, with responses that leave in any order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from textenv.architecture import architecture_of
from textenv.decoders import CachedDecoder, PackedDecoder, attending_together
from textenv.packed import step_mask
from textenv.responses import Prompts

pytestmark = pytest.mark.usefixtures("either_library")

V, PAD = 32, 0
STEPS = 5


def make(maker: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = maker(config).eval().requires_grad_(False)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return model


MODELS = [
    make(GPT2LMHeadModel, GPT2Config(vocab_size=V, n_embd=16, n_positions=64, n_layer=2, n_head=2)),
    make(
        LlamaForCausalLM,
        LlamaConfig(
            vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2,
        ),
    ),
]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whichever_responses_go_on_both_decoders_say_the_same(data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    prompts = Prompts.from_lists([list(range(2, 2 + length)) for length in lengths], PAD)
    group_size = data.draw(st.integers(1, 8))
    architecture = architecture_of(model)
    assert architecture is not None
    with torch.no_grad():
        ours = PackedDecoder(model, architecture, prompts, group_size, STEPS)
        theirs = CachedDecoder(model, prompts, group_size, STEPS)
        for _ in range(STEPS - 1):
            count = len(ours.logits)
            order = data.draw(st.permutations(range(count)) | st.none())
            rows = None if order is None else torch.tensor(order[: data.draw(st.integers(1, count))])
            tokens = data.draw(st.integers(0, V - 1)) + torch.arange(count if rows is None else len(rows))
            for decoder in (ours, theirs):
                decoder.step(tokens % V, rows)
            torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(ours.hidden, theirs.hidden, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("group_size", "prompt_length", "max_tokens", "together"),
    [(1, 30, 24, 1), (4, 30, 24, 4), (8, 30, 24, 4), (6, 10, 1000, 3), (7, 10, 1000, 1), (8, 1000, 10, 8)],
)
def test_as_many_attend_together_as_costs_few_needless_scores(
    group_size: int, prompt_length: int, max_tokens: int, together: int
) -> None:
    assert attending_together(group_size, prompt_length, max_tokens) == together


def test_each_response_of_a_step_sees_its_prompt_and_its_own_tokens() -> None:
    mask, every = (
        step_mask(prompts, 2, 2) for prompts in (torch.tensor([[0, 1], [1, 1]]).bool(), torch.ones(3, 2).bool())
    )
    assert mask is not None
    assert every is not None
    seen = mask == 0
    assert seen[0, 0].int().tolist() == [[0, 1, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]]
    assert seen[1, 0].int().tolist() == [[1, 1, 1, 0, 1, 0], [1, 1, 0, 1, 0, 1]]
    assert every.shape == (1, 1, 2, 6)
    assert step_mask(torch.ones(3, 2).bool(), 1, 2) is None
