"""Decoding against a plain forward pass of one row without padding, for several architectures."""

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from textenv import decoding
from textenv.models import load
from textenv.responses import Prompts, Responses
from textenv.sampling import Sampling

V, PAD, EOS = 32, 0, 1
K = 8
SMALL = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TOKENS = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": PAD}


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL, **TOKENS, intermediate_size=24, num_key_value_heads=1))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=16, n_layer=2, n_head=2, n_positions=32, **TOKENS))


def neox():
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, **TOKENS, intermediate_size=24, max_position_embeddings=32))


def bloom():
    """ALiBi: positions come from the mask and not from position ids."""
    return BloomForCausalLM(BloomConfig(vocab_size=V, hidden_size=16, n_layer=2, n_head=2, **TOKENS))


def mistral():
    """Each token sees the last 4 only: a sliding-window cache."""
    config = MistralConfig(**SMALL, **TOKENS, intermediate_size=24, num_key_value_heads=1, sliding_window=4)
    return MistralForCausalLM(config)


def gemma2():
    """Sliding and full attention in turn, and capped logits."""
    config = Gemma2Config(
        **SMALL, **TOKENS, intermediate_size=24, num_key_value_heads=1, head_dim=8, sliding_window=4,
        query_pre_attn_scalar=8,
    )  # fmt: skip
    return Gemma2ForCausalLM(config)


MAKERS = [llama, gpt2, neox, bloom, mistral, gemma2]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__)
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = request.param().eval()
        # Larger weights than at initialisation, so that the tokens before matter.
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.2)
    return model


def prompts():
    rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14], [15, 16, 17, 18, 19]]
    return Prompts.from_lists(rows, PAD, length=9)


def draw(model, seed=0, **options):
    options = {"group_size": K, "max_tokens": 8, "eos_id": EOS, "pad_id": PAD} | options
    return decoding.sample(model, prompts(), generator=torch.Generator().manual_seed(seed), **options)


def plain_logprobs(model, prompt, response):
    """The log-probabilities of a response by one forward pass over its row alone, without padding."""
    logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0]
    logprobs = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
    return logprobs[torch.arange(len(response)), torch.tensor(response)]


def test_logprobs_equal_those_of_a_plain_forward_pass(model):
    responses, sampled, *_ = draw(model)
    assert len(set(responses.lengths.tolist())) > 1
    computed = decoding.response_logprobs(model, responses)
    prompt_rows = responses.prompts.to_lists()
    for row, response in enumerate(responses.to_lists()):
        with torch.no_grad():
            expected = plain_logprobs(model, prompt_rows[row // K], response)
        assert torch.allclose(computed[row, : len(response)], expected, atol=1e-4)
        assert torch.allclose(sampled[row, : len(response)], expected, atol=1e-4)
        assert not computed[row, len(response) :].any()
        assert not sampled[row, len(response) :].any()
        assert EOS not in response[:-1]
        assert len(response) == 8 or response[-1] == EOS


def test_entropy_and_states_of_a_sample_are_those_of_the_parallel_pass(model):
    sample = draw(model, keep_states=True, sampling=Sampling(temperature=0.7))
    assert len(set(sample.responses.lengths.tolist())) > 1
    logits, hidden = decoding.predictions(model, sample.responses)
    assert torch.allclose(sample.hidden, hidden, atol=1e-4)
    probabilities = torch.softmax(logits / 0.7, dim=-1)
    entropy = decoding.spread(torch.special.entr(probabilities).sum(dim=-1), sample.responses.mask)
    assert torch.allclose(sample.entropy, entropy, atol=1e-4)
    assert draw(model).hidden is None


def test_a_shared_prompt_changes_no_output_and_no_gradient(model):
    responses = draw(model).responses
    weights = torch.randn(responses.ids.shape, generator=torch.Generator().manual_seed(1)) * responses.mask

    def loss_and_gradients(batch):
        model.zero_grad()
        logits, hidden = decoding.predictions(model, batch)
        weighed = decoding.token_logprobs(logits, batch.ids[batch.mask]) + hidden.mean(dim=1)
        loss = (weighed * weights[batch.mask]).sum()
        loss.backward()
        return loss, [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]

    grouped, grouped_gradients = loss_and_gradients(responses)
    single, single_gradients = loss_and_gradients(responses.ungrouped())
    assert torch.allclose(grouped, single, rtol=1e-4, atol=1e-4)
    for one, other in zip(grouped_gradients, single_gradients, strict=True):
        assert torch.isfinite(one).all()
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-6)


def test_gradients_are_those_of_a_plain_forward_pass(model):
    prompt, response = [5, 6, 7, 8], [20, 21, 22, 23, 24, 25]
    beside = [[26, 27, 28, 29, 30, 31]]  # a longer prompt, so that the first is padded
    batch = Responses.from_lists(Prompts.from_lists([prompt, *beside], PAD), [response, response], PAD)
    model.zero_grad()
    logits = decoding.predictions(model, batch).logits
    logprobs = decoding.token_logprobs(logits, batch.ids[batch.mask])
    decoding.spread(logprobs, batch.mask)[0].sum().backward()
    gradient = model.get_input_embeddings().weight.grad.clone()
    model.zero_grad()
    plain_logprobs(model, prompt, response).sum().backward()
    expected = model.get_input_embeddings().weight.grad
    assert expected[prompt].abs().max() > 1e-3
    assert torch.allclose(gradient, expected, atol=1e-4 * float(expected.abs().max()) + 1e-6)


def test_next_token_logprobs_of_rows_that_end_anywhere(model):
    responses, sampled, *_ = draw(model)
    batch = responses.ungrouped()
    for step in range(responses.ids.shape[1]):
        rows = responses.lengths > step
        ids = torch.cat([batch.prompts.ids, batch.ids], dim=1)[rows]
        mask = torch.cat([batch.prompts.mask, batch.mask & (torch.arange(batch.ids.shape[1]) < step)], dim=1)[rows]
        logprobs = decoding.next_token_logprobs(model, ids, mask)
        assert torch.allclose(logprobs.exp().sum(dim=1), torch.ones(len(ids)), atol=1e-5)
        chosen = logprobs.gather(1, batch.ids[rows, step, None])[:, 0]
        assert torch.allclose(chosen, sampled[rows, step], atol=1e-4)


def test_equal_generators_give_equal_samples(model):
    one, two, other = draw(model), draw(model), draw(model, seed=1)
    assert torch.equal(one.responses.ids, two.responses.ids)
    assert torch.equal(one.logprobs, two.logprobs)
    assert one.responses.to_lists() != other.responses.to_lists()


def test_rows_that_end_change_no_other_row(model):
    """Without an end every row runs on; up to its own end each must stay what it was."""
    ending, endless = draw(model), draw(model, eos_id=V)
    assert bool((ending.responses.lengths < 8).any())
    assert bool((endless.responses.lengths == 8).all())
    for row, response in enumerate(ending.responses.to_lists()):
        assert endless.responses.ids[row, : len(response)].tolist() == response
        ended = ending.logprobs[row, : len(response)]
        assert torch.allclose(endless.logprobs[row, : len(response)], ended, atol=1e-4)


def test_greedy_takes_the_likeliest_token(model):
    responses, logprobs, *_ = draw(model, greedy=True)
    logits = decoding.predictions(model, responses).logits
    best = torch.log_softmax(logits, dim=-1).max(dim=-1)
    assert torch.equal(best.indices, responses.ids[responses.mask])
    assert torch.allclose(best.values, logprobs[responses.mask], atol=1e-4)


def test_temperature_applies_alike_in_sampling_and_in_logprobs(model):
    responses, sampled, *_ = draw(model, sampling=Sampling(temperature=0.5))
    assert torch.allclose(decoding.response_logprobs(model, responses, Sampling(temperature=0.5)), sampled, atol=1e-4)
    assert not torch.allclose(decoding.response_logprobs(model, responses), sampled, atol=1e-2)


def test_samples_have_the_frequencies_of_the_model():
    """12,000 first tokens of one prompt: each frequency within 4.5 standard errors of its probability."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = llama().eval()
    generator = torch.Generator().manual_seed(2)
    prompt = Prompts.from_lists([[5, 6]], PAD)
    drawn = decoding.sample(
        model, prompt, group_size=12_000, max_tokens=1, eos_id=EOS, pad_id=PAD, generator=generator
    ).responses.ids[:, 0]
    probability = decoding.next_token_logprobs(model, prompt.ids, prompt.mask)[0].exp()
    frequency = torch.bincount(drawn, minlength=V) / len(drawn)
    error = (probability * (1 - probability) / len(drawn)).sqrt()
    assert bool(((frequency - probability).abs() < 4.5 * error).all())


def test_one_token_is_a_whole_response(model):
    responses, sampled, *_ = draw(model, max_tokens=1)
    assert responses.ids.shape == (4 * K, 1)
    assert torch.allclose(decoding.response_logprobs(model, responses), sampled, atol=1e-4)


def test_values_of_tokens_are_spread_into_their_columns():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    assert decoding.spread(torch.tensor([1.0, 2.0, 3.0]), mask).tolist() == [[1, 2, 0], [3, 0, 0]]
    assert decoding.spread(torch.ones(3, 2), mask)[:, :, 1].tolist() == [[1, 1, 0], [1, 0, 0]]


@pytest.mark.slow
def test_smollm2_agrees_with_a_plain_forward_pass():
    language_model = load("smollm2")
    texts = ["Once upon a time, in a small village,", "The film", "My favourite food is pizza because"]
    batch = Prompts.from_lists([language_model.encode(text) for text in texts], language_model.pad_id)
    generator = torch.Generator().manual_seed(0)
    responses, sampled, *_ = language_model.sample(batch, max_tokens=12, group_size=2, generator=generator)
    computed = language_model.logprobs(responses)
    for row, response in enumerate(responses.to_lists()):
        with torch.no_grad():
            expected = plain_logprobs(language_model.model, batch.to_lists()[row // 2], response)
        assert torch.allclose(sampled[row, : len(response)], expected, atol=1e-3)
        assert torch.allclose(computed[row, : len(response)], expected, atol=1e-3)
