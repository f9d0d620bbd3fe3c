from __future__ import annotations

import pytest
import torch

from agents.policy import Actor, ActorCritic, rows_of
from textenv import enumeration, models
from textenv.decoding import Sample
from textenv.language_model import LanguageModel
from textenv.tasks.exact import Exact


@pytest.fixture(scope="module")
def language_model() -> LanguageModel:
    return models.load("exact")


@pytest.fixture(scope="module")
def sample(language_model: LanguageModel) -> Sample:
    return language_model.sample(
        enumeration.all_prompts(Exact()), max_tokens=5, group_size=3, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("separate_value", [False, True])
def test_starts_as_the_language_model_with_values_of_0(
    language_model: LanguageModel, sample: Sample, separate_value: bool
) -> None:
    outputs = ActorCritic(language_model, separate_value=separate_value)(sample.responses)
    torch.testing.assert_close(outputs.logprobs.detach(), sample.logprobs, atol=1e-5, rtol=0)
    assert not outputs.values.any()


def test_entropy_is_that_of_the_whole_vocabulary(language_model: LanguageModel) -> None:
    prompts = enumeration.all_prompts(Exact())
    first = language_model.sample(prompts, max_tokens=1, generator=torch.Generator().manual_seed(0))
    entropy = ActorCritic(language_model, separate_value=False)(first.responses).entropy
    tree = enumeration.next_token_tree(language_model, prompts, max_tokens=1)
    torch.testing.assert_close(entropy[:, 0], -(tree[0].exp() * tree[0]).sum(dim=-1)[:, 0])
    assert not entropy.requires_grad


def test_chunks_change_nothing(language_model: LanguageModel, sample: Sample) -> None:
    policy = ActorCritic(language_model, separate_value=False)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = policy(sample.responses)
    for name, part in policy.evaluate(sample.responses, chunks=3)._asdict().items():
        torch.testing.assert_close(part, getattr(whole, name), msg=name)


def test_what_comes_later_moves_no_value(language_model: LanguageModel, sample: Sample) -> None:
    policy = ActorCritic(language_model, separate_value=False)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    ids = sample.responses.ids.clone()
    ids[:, 1:] = 2
    changed = type(sample.responses)(sample.responses.prompts, ids, sample.responses.mask)
    with torch.no_grad():
        before, after = policy(sample.responses).values, policy(changed).values
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_an_actor_says_what_an_actor_critic_says_of_its_choices(language_model: LanguageModel, sample: Sample) -> None:
    alone, judged = Actor(language_model), ActorCritic(language_model, separate_value=False)
    for name, part in alone(sample.responses)._asdict().items():
        assert torch.equal(part, getattr(judged(sample.responses), name)), name
    for name, part in alone.evaluate(sample.responses, chunks=3)._asdict().items():
        torch.testing.assert_close(part, getattr(judged(sample.responses), name).detach(), msg=name)
    assert sum(p.numel() for p in alone.parameters()) == sum(p.numel() for p in language_model.model.parameters())
    assert all(parameter.requires_grad for parameter in alone.parameters())


def test_the_trunk_is_shared_unless_asked_otherwise(language_model: LanguageModel) -> None:
    size = sum(parameter.numel() for parameter in language_model.model.parameters())
    one, two = (ActorCritic(language_model, separate_value=separate) for separate in (False, True))
    head = language_model.model.config.hidden_size + 1
    assert sum(parameter.numel() for parameter in one.parameters()) == size + head
    assert sum(parameter.numel() for parameter in two.parameters()) == 2 * size + head
    assert all(parameter.requires_grad for parameter in two.parameters())
    assert not any(parameter.requires_grad for parameter in language_model.model.parameters())


def test_rows_of_groups() -> None:
    assert rows_of(torch.tensor([2, 0]), 3).tolist() == [6, 7, 8, 0, 1, 2]
