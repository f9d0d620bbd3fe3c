"""The formula of operations is what torch counts, and what a small case comes to by hand."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import flops
from benchmarks.speed.plan import Shape
from benchmarks.speed.rates import decoding_work, sizes_of
from benchmarks.speed.workload import Workload
from textenv.responses import Prompts, Responses

TINY = Shape(layers=2, width=32, vocab=50, prompt=4, response=3, prompts=2, group=3, epochs=2, minibatches=2)


@pytest.mark.parametrize("shape", [TINY, Shape(model="concierge")])
def test_the_formula_is_what_torch_counts(shape):
    """torch counts every pair of tokens, masked or not; backward computes both gradients of each product."""
    model = Workload.of(shape).language_model.copy().model
    rows, length = 3, 6
    ids = torch.randint(2, 50, (rows, length), generator=torch.Generator().manual_seed(0))
    tokens = flops.Tokens(rows * length, rows * length**2, states=rows * length, state_pairs=rows * length**2)
    expected = flops.forward(sizes_of(model), tokens)
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            logits = model(input_ids=ids, use_cache=False).logits
        assert counter.get_total_flops() == expected
        with FlopCounterMode(display=False) as counter:
            logits.square().sum().backward()
        assert counter.get_total_flops() == 2 * expected


def test_a_synthetic_models_sizes_are_known_without_it():
    assert flops.Sizes.of(TINY) == sizes_of(Workload.of(TINY).language_model.model)


@pytest.mark.slow
def test_the_sizes_of_smollm2_are_known_without_it():
    shape = Shape(model="smollm2")
    assert flops.Sizes.of(shape) == sizes_of(Workload.of(shape).language_model.model)


def test_an_iteration_by_hand():
    """2 prompts of 4 tokens with 3 responses of 3, of which the last token goes nowhere.

    In the last of 2 layers the first 3 tokens of a prompt have keys and values, and nothing else.
    """
    linear, attention, head = 12 * 2 * 32**2, 2 * 32, 32 * 50
    tokens = 2 * 4 + 6 * 2
    pairs = 2 * (1 + 2 + 3 + 4) + 6 * (5 + 6)
    trunk = 2 * linear * tokens + 4 * attention * pairs
    trunk -= 2 * 10 * 32**2 * (2 * 3) + 4 * 32 * 2 * (1 + 2 + 3)
    logits = 2 * head * (2 + 6 * 2)
    assert flops.ppo(TINY, networks=1, generated=18) == (2 * (trunk + logits), 3 * 2 * (trunk + logits))
    assert flops.ppo(TINY, networks=2, generated=18) == (2 * (trunk + logits), trunk + 3 * 2 * (2 * trunk + logits))


def test_no_more_is_counted_than_responses_of_other_lengths_need():
    """Of 6 responses with 18 tokens, three of 1 and three of 5 attend to more pairs than six of 3."""
    even = flops.ppo(TINY, networks=1, generated=18).rollout // 2
    prompts = Prompts.from_lists([[2, 3, 4, 5]] * 2, 0)
    uneven = Responses.from_lists(prompts, [[2], [2, 3, 4, 5, 6]] * 3, 0)
    assert even < decoding_work(Workload.of(TINY).language_model.model, uneven).flops < 1.05 * even


def test_decoding_counts_real_tokens_only():
    """With full prompts and responses it is the sampling pass of an iteration; padding adds nothing."""
    shape = replace(TINY, vocab=40)
    model = Workload.of(shape).language_model.model
    prompts = Prompts.from_lists([[2, 3, 4, 5]] * 2, 0)
    full = Responses.from_lists(prompts, [[2, 3, 4]] * 6, 0)
    work = decoding_work(model, full)
    assert work.flops == flops.ppo(shape, networks=1, generated=18).rollout // 2
    sizes = sizes_of(model)
    assert work.bytes == 4 * (3 * (sizes.linear + sizes.head) + 2 * sizes.attention * (2 * 10 + 6 * 11))
    padded = Responses(
        Prompts.from_lists([[2, 3, 4, 5]] * 2, 0, length=7),
        torch.nn.functional.pad(full.ids, (0, 2)),
        torch.nn.functional.pad(full.mask, (0, 2)),
    )
    assert decoding_work(model, padded).flops == work.flops


def test_parameters_are_those_of_the_model():
    """All but the biases and norms."""
    model = Workload.of(TINY).language_model.model
    assert flops.parameters(TINY) == sum(weight.numel() for weight in model.parameters() if weight.ndim == 2)
