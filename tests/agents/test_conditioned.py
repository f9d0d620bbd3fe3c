"""Reward-conditioned learning: its ranks, and a policy that is told them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.conditioned import Conditioned, ConditionedConfig, Pool, RankConditioned, ranks_of
from agents.policy import Computing
from textenv import models
from textenv.decoding import predictions
from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses
from textenv.sampling import Sampling
from textenv.vector_env import TextVectorEnv


def test_ranks_by_hand() -> None:
    rewards = torch.tensor([0.3, -1.0, 2.0, 0.5, 0.0, 1.0])
    assert ranks_of(rewards, 3).tolist() == [1, 2, 0, 1, 2, 0]
    assert ranks_of(rewards, 2).tolist() == [1, 1, 0, 0, 1, 0]
    # Of four places the middle one is 1.5, three eighths of the way down from the best.
    assert ranks_of(torch.ones(4), 2).tolist() == [0, 0, 0, 0]
    assert ranks_of(torch.tensor([1.0, 1.0, 1.0, 2.0, 0.0]), 5).tolist() == [2, 2, 2, 0, 4]


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30), st.integers(1, 8))
def test_ranks_follow_the_rewards(rewards: list[int], n_ranks: int) -> None:
    values = torch.tensor(rewards, dtype=torch.float32)
    ranks = ranks_of(values, n_ranks)
    assert 0 <= int(ranks.min()) <= int(ranks.max()) < n_ranks
    for first, rank in zip(rewards, ranks.tolist(), strict=True):
        for second, other in zip(rewards, ranks.tolist(), strict=True):
            assert rank <= other if first > second else rank == other or first != second
    if len(set(rewards)) == len(rewards) and len(rewards) % n_ranks == 0:
        assert ranks.bincount(minlength=n_ranks).tolist() == [len(rewards) // n_ranks] * n_ranks


CLOSE: Any = {"atol": 1e-4, "rtol": 1e-4}


def some_rows(reference: LanguageModel) -> Responses:
    tokens = torch.arange(2, 7)
    prompts = Prompts.from_lists([tokens[:3].tolist(), tokens[:1].tolist(), tokens[2:4].tolist()], reference.pad_id)
    return Responses.from_lists(prompts, [[2, 3], [4, 4, reference.eos_id], [5]], reference.pad_id)


@pytest.mark.parametrize("name", ["exact", "concierge"])
def test_a_rank_is_a_vector_beside_every_tokens_embedding(name: str) -> None:
    """Also where, as in Concierge's model, the output layer is the table of embeddings."""
    reference = models.load(name)
    policy = RankConditioned(reference.copy(), 3, Computing("float32", 1))
    with torch.no_grad():
        policy.rank_embeddings.normal_(generator=torch.Generator().manual_seed(0))
    rows, ranks = some_rows(reference), torch.tensor([2, 0, 1])
    logprobs, kl = policy.conditioned(rows, ranks, reference)
    model, expected = reference.model, []
    vectors = torch.cat([torch.zeros_like(policy.rank_embeddings[:1]), policy.rank_embeddings])
    for prompt, response, rank in zip(rows.prompts.to_lists(), rows.to_lists(), ranks.tolist(), strict=True):
        embedded = model.get_input_embeddings()(torch.tensor([prompt + response])) + vectors[rank]
        expected.append(model(inputs_embeds=embedded).logits[0, len(prompt) - 1 : -1])
    told, plain = (torch.log_softmax(each, dim=1) for each in (torch.cat(expected), predictions(model, rows).logits))
    torch.testing.assert_close(logprobs[rows.mask], told.gather(1, rows.ids[rows.mask][:, None])[:, 0], **CLOSE)
    torch.testing.assert_close(kl[rows.mask], (plain.exp() * (plain - told)).sum(dim=1), **CLOSE)
    # What answers is the best rank, a plain model again after it was asked.
    of_the_best = policy.conditioned(rows, torch.zeros(3, dtype=torch.long), reference)
    torch.testing.assert_close(policy.language_model.logprobs(rows), of_the_best[0])
    assert float(of_the_best[1].detach().abs().max()) < 1e-5
    torch.testing.assert_close(predictions(policy.language_model.model, rows).logits, predictions(model, rows).logits)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_kl_is_from_the_distribution_that_is_drawn_from(temperature: float) -> None:
    reference = models.load("exact")
    drawing = dataclasses.replace(reference.copy(), sampling=Sampling(temperature))
    policy, rows = RankConditioned(drawing, 3, Computing("float32", 1)), some_rows(reference)
    logprobs, kl = policy.conditioned(rows, torch.zeros(3, dtype=torch.long), reference)
    # The best rank has no vector, so that both have the same logits, and p^(1/T) / Σ p^(1/T) is drawn from.
    p = predictions(reference.model, rows).logits.softmax(dim=1)
    drawn = p ** (1 / temperature) / (p ** (1 / temperature)).sum(dim=1, keepdim=True)
    torch.testing.assert_close(kl[rows.mask], (p * (p / drawn).log()).sum(dim=1), **CLOSE)
    torch.testing.assert_close(logprobs, drawing.logprobs(rows), **CLOSE)
    assert (float(kl.detach().max()) < 1e-6) == (temperature == 1)


def test_a_pool_gives_back_what_it_took() -> None:
    reference, pool = models.load("exact"), Pool()
    rows = some_rows(reference)
    pool.add(Responses(rows.prompts[:1], rows.ids, rows.mask), torch.tensor([1.0, 2.0, 3.0]))
    pool.add(rows, torch.tensor([4.0, 5.0, 6.0]))
    some = pool.rows(torch.tensor([4, 1]), reference.pad_id)
    prompts, answers = rows.prompts.to_lists(), rows.to_lists()
    assert (some.prompts.to_lists(), some.to_lists()) == ([prompts[1], prompts[0]], [answers[1], answers[1]])
    assert pool.rewards.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_rank_comes_to_be_paid_as_it_says() -> None:
    env = TextVectorEnv("exact", kl="full")
    agent = Conditioned(env, ConditionedConfig(group_size=8, learning_rate=1e-3, rank_learning_rate=2e-2), 0)
    agent.learn(6000)
    rows = agent.pool.rows(torch.arange(len(agent.pool.responses)), env.pad_id)
    paid = agent.pool.rewards
    with torch.no_grad():
        best, worst = (
            agent.policy.conditioned(rows, torch.full((len(paid),), rank), env.reference)[0].sum(dim=1)
            for rank in (0, 4)
        )
    preferred = (best - worst).argsort(descending=True)
    quarter = len(paid) // 4
    assert float(paid[preferred[:quarter]].mean() - paid[preferred[-quarter:]].mean()) > 0.5 * float(paid.std())
