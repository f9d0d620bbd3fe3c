"""The path that runs a model's parts itself, against transformers' own forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from textenv import decoders, decoding, packed
from textenv import responses as responses_module
from textenv.architecture import architecture_of
from textenv.responses import Prompts, Responses, positions_of

pytestmark = pytest.mark.usefixtures("either_library")

V, PAD, EOS = 32, 0, 1
SPECIAL: dict[str, Any] = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": PAD}
GPT2: dict[str, Any] = {"vocab_size": V, "n_embd": 16, "n_positions": 64}
LLAMA: dict[str, Any] = {
    "vocab_size": V, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
SHARED = SPECIAL | {"num_key_value_heads": 2, "attention_bias": True}
MAKERS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, **SPECIAL)),
    "shared keys": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, **SHARED)),
    "wide heads": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, **SPECIAL, head_dim=8, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, **SPECIAL, n_layer=2, n_head=4)),
    "one layer": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, **SPECIAL, n_layer=1, n_head=2)),
}


def make(name: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = MAKERS[name]().eval()
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    return model


MODELS = {name: make(name) for name in MAKERS}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]


@st.composite
def some_responses(draw: st.DrawFn) -> Responses:
    """Prompts and responses of any lengths; the first response to a prompt may be empty."""
    token = st.integers(2, V - 1)
    k = draw(st.integers(1, 3))
    prompts = draw(st.lists(st.lists(token, min_size=1, max_size=6), min_size=1, max_size=3))
    rows = [draw(st.lists(token, min_size=1, max_size=draw(st.sampled_from([1, 4, 16])))) for _ in prompts * k]
    return Responses.from_lists(Prompts.from_lists(prompts, PAD), rows, PAD)


@settings(deadline=None, max_examples=40)
@given(some_responses(), st.sampled_from(list(MODELS)))
def test_states_are_those_of_transformers(responses: Responses, name: str) -> None:
    model = MODELS[name]
    architecture = architecture_of(model)
    assert architecture is not None
    expected = decoding._general_predictions(model, responses)
    with torch.no_grad():
        states = packed.predicting_states(architecture, responses)
        torch.testing.assert_close(states, expected.hidden, rtol=1e-4, atol=1e-4)
        every = decoding._general_states(model, responses)
        last = every[torch.arange(len(responses)), responses.lengths]
        torch.testing.assert_close(packed.final_states(architecture, responses), last, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_transformers(model: Any) -> None:
    rows = [[3, 4, 5, 6, 7, 8, 9, 10], [11], [12, 13, 14], [15, 16, 17, 18]]
    responses = Responses.from_lists(Prompts.from_lists([[20, 21, 22, 23], [24]], PAD), rows, PAD)
    gradients = []
    for path in (decoding.predictions, decoding._general_predictions):
        model.zero_grad()
        (path(model, responses).logits.log_softmax(dim=1)[:, 5] ** 2).sum().backward()
        gradients.append([weight.grad.clone() for weight in model.parameters() if weight.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_an_empty_response_is_judged_at_the_end_of_its_prompt(model: Any) -> None:
    prompts = Prompts.from_lists([[20, 21, 22], [24]], PAD)
    responses = Responses.from_lists(prompts, [[], [5, 6], [7], []], PAD)
    states = decoding.final_states(model, responses)
    architecture = architecture_of(model)
    assert architecture is not None
    alone = packed.prefill(architecture, prompts).last
    torch.testing.assert_close(states[[0, 3]], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padded", [True, False])
def test_a_decoder_says_what_transformers_says_and_draws_the_same(
    model: Any, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = Prompts.from_lists([[20, 21, 22], [24] if padded else [24, 25, 26]], PAD)

    def draw() -> decoding.Sample:
        return decoding.sample(
            model,
            prompts,
            group_size=8,
            max_tokens=12,
            eos_id=EOS,
            pad_id=PAD,
            generator=torch.Generator().manual_seed(3),
        )

    ours = draw()
    monkeypatch.setattr(decoders, "architecture_of", lambda model: None)
    theirs = draw()
    assert len(set(ours.responses.lengths.tolist())) > 1
    assert ours.responses.to_lists() == theirs.responses.to_lists()
    torch.testing.assert_close(ours.logprobs, theirs.logprobs, rtol=0, atol=1e-4)


def test_reading_in_parts_changes_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = Prompts.from_lists([[20, 21, 22], [24], [25, 26], [27, 28, 29, 30], [31]], PAD)

    def draw() -> tuple[decoding.Sample, torch.Tensor]:
        noise = torch.Generator().manual_seed(3)
        drawn = decoding.sample(
            model, prompts, group_size=3, max_tokens=6, eos_id=EOS, pad_id=PAD, generator=noise, keep_states=True
        )
        return drawn, decoding.response_logprobs(model, drawn.responses)

    whole, whole_logprobs = draw()
    assert len(responses_module.parts_of(prompts, 18)) == 1
    monkeypatch.setattr(responses_module, "TOKENS_AT_ONCE", 8)
    assert [len(part) for part in responses_module.parts_of(prompts)] == [2, 2, 1]
    assert len(responses_module.parts_of(prompts, 18)) == 5  # Never less than one prompt.
    parts, parts_logprobs = draw()
    assert parts.responses.to_lists() == whole.responses.to_lists()
    assert parts.hidden is not None
    torch.testing.assert_close(parts.hidden, whole.hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts_logprobs, whole_logprobs, rtol=1e-4, atol=1e-5)


def test_other_settings_go_through_transformers() -> None:
    scaled = GPT2LMHeadModel(
        GPT2Config(vocab_size=V, n_embd=16, n_layer=2, n_head=2, scale_attn_by_inverse_layer_idx=True, **SPECIAL)
    )
    assert architecture_of(scaled.eval()) is None
    assert architecture_of(make("llama").train()) is None
    assert architecture_of(make("llama").bfloat16()) is None
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    assert architecture_of(LlamaForCausalLM(LlamaConfig(**LLAMA, **SPECIAL, rope_parameters=rope)).eval()) is None


def test_positions_count_real_tokens_only() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]], dtype=torch.bool)
    assert positions_of(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]
