from __future__ import annotations

import dataclasses

import pytest
import torch

from agents.policy import Actor, ActorCritic, Computing, rows_of
from textenv import enumeration, models
from textenv.decoding import Sample
from textenv.language_model import LanguageModel
from textenv.precision import Precision
from textenv.sampling import Sampling
from textenv.tasks.exact import Exact


@pytest.fixture(scope="module")
def language_model() -> LanguageModel:
    return models.load("exact")


@pytest.fixture(scope="module")
def sample(language_model: LanguageModel) -> Sample:
    return language_model.sample(
        enumeration.all_prompts(Exact()), max_tokens=5, group_size=3, generator=torch.Generator().manual_seed(0)
    )


def actor_critic(
    language_model: LanguageModel, separate_value: bool = False, precision: Precision = "float32", parts: int = 1
) -> ActorCritic:
    value_model = language_model.copy() if separate_value else None
    return ActorCritic(language_model.copy(), value_model, Computing(precision, parts))


@pytest.mark.parametrize("separate_value", [False, True])
def test_starts_as_the_language_model_with_values_of_0(
    language_model: LanguageModel, sample: Sample, separate_value: bool
) -> None:
    outputs = actor_critic(language_model, separate_value)(sample.responses)
    torch.testing.assert_close(outputs.logprobs.detach(), sample.logprobs, atol=1e-5, rtol=0)
    assert not outputs.values.any()


@pytest.mark.parametrize("separate_value", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_recalled_of_a_sample_is_what_the_next_pass_says(
    language_model: LanguageModel, separate_value: bool, precision: Precision
) -> None:
    policy = actor_critic(language_model, separate_value, precision)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    sample = policy.language_model.sample(
        enumeration.all_prompts(Exact()),
        max_tokens=5,
        group_size=3,
        generator=torch.Generator().manual_seed(0),
        keep_states=True,
    )
    with torch.no_grad():
        whole = policy(sample.responses)
    recalled = policy.recall(sample, chunks=3)
    assert not any(part.requires_grad for part in recalled)
    torch.testing.assert_close(recalled.values, whole.values, atol=1e-4, rtol=1e-4)
    # The first step's ratio must be 1 within 1e-3.
    torch.testing.assert_close(
        (whole.logprobs - recalled.logprobs).exp(), torch.ones_like(whole.logprobs), atol=1e-3, rtol=0
    )
    actor = Actor(language_model.copy(), Computing(precision, 1))
    torch.testing.assert_close(actor.recall(sample, chunks=3), recalled.logprobs, atol=1e-5, rtol=0)


def test_bfloat16_moves_the_weights_as_float32_does(language_model: LanguageModel, sample: Sample) -> None:
    gradients = []
    for precision in ("float32", "bfloat16"):
        actor = Actor(language_model.copy(), Computing(precision, 1))
        actor(sample.responses).sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in actor.parameters()]))
        assert all(weight.dtype == weight.grad.dtype == torch.float32 for weight in actor.parameters())
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.999
    assert not torch.equal(*gradients)  # It was indeed computed in other numbers.


def test_what_comes_later_moves_no_value(language_model: LanguageModel, sample: Sample) -> None:
    policy = actor_critic(language_model)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    ids = sample.responses.ids.clone()
    ids[:, 1:] = 2
    changed = type(sample.responses)(sample.responses.prompts, ids, sample.responses.mask)
    with torch.no_grad():
        before, after = policy(sample.responses).values, policy(changed).values
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_an_actor_says_what_an_actor_critic_says_of_its_choices(language_model: LanguageModel, sample: Sample) -> None:
    alone = Actor(language_model.copy(), Computing("float32", 1))
    judged = actor_critic(language_model)
    assert torch.equal(alone(sample.responses), judged(sample.responses).logprobs)
    assert sum(p.numel() for p in alone.parameters()) == sum(p.numel() for p in language_model.model.parameters())
    assert all(parameter.requires_grad for parameter in alone.parameters())


def test_the_trunk_is_shared_unless_asked_otherwise(language_model: LanguageModel) -> None:
    size = sum(parameter.numel() for parameter in language_model.model.parameters())
    one, two = (actor_critic(language_model, separate) for separate in (False, True))
    head = language_model.model.config.hidden_size + 1
    assert sum(parameter.numel() for parameter in one.parameters()) == size + head
    assert sum(parameter.numel() for parameter in two.parameters()) == 2 * size + head
    assert all(parameter.requires_grad for parameter in two.parameters())
    assert not any(parameter.requires_grad for parameter in language_model.model.parameters())


def test_rows_of_groups() -> None:
    assert rows_of(torch.tensor([2, 0]), 3).tolist() == [6, 7, 8, 0, 1, 2]


@pytest.mark.parametrize("separate_value", [False, True])
def test_examples_that_take_turns_make_the_same_step(
    language_model: LanguageModel, sample: Sample, separate_value: bool
) -> None:
    """The gradient of a loss that no sum over parts can make, since it is normalised over all of them."""
    gradients = []
    for parts in (1, 3):
        policy = actor_critic(language_model, separate_value, parts=parts)
        torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
        outputs = policy(sample.responses)
        (outputs.logprobs.std() + outputs.values.square().mean()).backward()
        gradients.append({name: weight.grad for name, weight in policy.named_parameters() if weight.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() > {"value_head.weight"}
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.6), Sampling(top_k=3), Sampling(top_p=0.8)])
def test_a_pass_says_of_tokens_what_the_sampling_drew_them_with(
    language_model: LanguageModel, sampling: Sampling
) -> None:
    policy = actor_critic(dataclasses.replace(language_model, sampling=sampling))
    generator = torch.Generator().manual_seed(0)
    drawn = policy.language_model.sample(
        enumeration.all_prompts(Exact()), max_tokens=5, group_size=8, generator=generator, keep_states=True
    )
    new = policy(drawn.responses)
    torch.testing.assert_close(new.logprobs.detach(), drawn.logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(policy.recall(drawn, 2).logprobs, drawn.logprobs)
    groups = torch.tensor([2, 0])
    some = policy(drawn.responses.groups(groups)).logprobs
    torch.testing.assert_close(some, new.logprobs[rows_of(groups, 8), : some.shape[1]])
