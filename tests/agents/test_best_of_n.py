"""Best-of-n on Exact-v0, where its distribution is known."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from agents import check_agent
from agents.best_of_n import BestOfN, BestOfNConfig, best_of_n_logprobs, kl_bound
from agents.expert_iteration import best_of_groups
from agents.outcome import Judge, ReferencePolicy, finite
from agents.ppo import PPOConfig
from agents.rlhf import Loop, RLHFConfig, prepare
from agents.run_folder import RunFolder
from agents.seeds import Seeds
from benchmarks.play import of_run
from textenv.enumeration import (
    all_logprobs,
    all_prompts,
    all_responses,
    all_rewards,
    exact_optimum,
    objective_of,
    total_variation,
)
from textenv.errors import UsageError
from textenv.evaluation import evaluate
from textenv.responses import Prompts
from textenv.tasks.base import prompts_of
from textenv.vector_env import TextVectorEnv

DRAWS = 3000


def drawn(agent: BestOfN, prompts: Prompts) -> list[tuple[int, ...]]:
    """Responses that `predict` gives token by token, as evaluation asks for them."""
    evaluation = evaluate(
        agent,
        agent.env.task,
        agent.env.reference,
        agent.env.reward_function,
        prompts=prompts,
        samples_per_prompt=DRAWS,
        generator=torch.Generator(),
    )
    assert bool(evaluation.kl.isnan().all()), "its KL cannot be told from what it draws"
    return [tuple(response) for response in evaluation.responses.to_lists()]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_its_distribution_by_going_through_all_draws(n: int) -> None:
    """Of four responses, two of them equally good, and all the ways in which n can be drawn."""
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    scores = torch.tensor([0.0, 1.0, 2.0, 1.0], dtype=torch.float64)
    expected = torch.zeros(4, dtype=torch.float64)
    for draw in product(range(4), repeat=n):
        chosen = draw[int(best_of_groups(scores[list(draw)], n))]
        expected[chosen] += reference[list(draw)].prod()
    found = best_of_n_logprobs(reference.log()[None], scores[None], n).exp()
    torch.testing.assert_close(found, expected[None])
    if n == 2:  # By hand: two worst ones; the middle level 0.7² − 0.1² in the odds 1 to 2; and the rest.
        torch.testing.assert_close(found[0], torch.tensor([0.01, 0.16, 0.51, 0.32], dtype=torch.float64))


def test_a_rare_response_is_n_times_as_likely() -> None:
    reference = torch.tensor([[1 - 1e-13, 1e-13]], dtype=torch.float64).log()
    found = best_of_n_logprobs(reference, torch.tensor([[0.0, 1.0]], dtype=torch.float64), 8)
    assert float(found[0, 1].exp()) == pytest.approx(8e-13, rel=1e-9)


def test_what_it_says_is_distributed_as_the_best_of_n() -> None:
    n = 4
    env = TextVectorEnv("exact", kl="full")
    agent = BestOfN(env, BestOfNConfig(n=n), 0)
    prompts = all_prompts(env.task)[torch.tensor([1])]
    every = all_responses(prompts, vocab_size=7, max_tokens=5, eos_id=env.eos_id, pad_id=env.pad_id)
    expected = agent.response_logprobs(env.task)[1].exp() * DRAWS
    place = {tuple(response): row for row, response in enumerate(every.to_lists())}
    rows = torch.tensor([place[response] for response in drawn(agent, prompts)])
    counts = rows.bincount(minlength=len(expected)).double()
    rare = expected < 5
    observed, due = (torch.cat([each[~rare], each[rare].sum()[None]]) for each in (counts, expected))
    assert len(due) > 40
    assert stats.chisquare(observed, due * observed.sum() / due.sum()).pvalue > 0.001


@pytest.mark.parametrize("n", [1, 2, 16, 128])
def test_its_kl_is_within_the_bound(n: int) -> None:
    env = TextVectorEnv("exact", kl="full")
    reference = all_logprobs(env.task, env.reference).double().log_softmax(dim=1)
    rewards = all_rewards(env.task, env.reward_function, env.reference)
    # Without ties it is the bound, but for the lumps of probability that single responses are.
    noisy = rewards + 1e-6 * torch.rand(rewards.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for each, least in ((rewards, 0.0), (noisy, 0.85 if n < 100 else 0.6)):
        policy = best_of_n_logprobs(reference, each, n)
        torch.testing.assert_close(policy.exp().sum(dim=1), torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0)
        kl = float(objective_of(policy, reference, rewards, env.beta).kl)
        assert least * kl_bound(n) - 1e-9 <= kl <= kl_bound(n) + 1e-9


def test_the_bound_by_hand() -> None:
    assert kl_bound(1) == 0
    assert kl_bound(4) == pytest.approx(math.log(4) - 0.75)


@pytest.mark.slow
def test_it_keeps_the_contract_of_agents() -> None:
    results = {result.name: result for result in check_agent(BestOfN, config=BestOfNConfig(n=4, n_prompts=4))}
    assert [result for result in results.values() if result.failed] == []
    skipped = [name for name, result in results.items() if result.outcome == "skipped"]
    assert skipped == ["logprobs"]


def test_learning_measures_what_the_best_are_paid() -> None:
    metrics: list[dict[str, float]] = []
    env = TextVectorEnv("exact", kl="full")
    BestOfN(env, BestOfNConfig(n=8), 0).learn(1500, lambda agent, numbers: metrics.append(numbers) is None)
    assert len(metrics) > 1
    for numbers in metrics:
        assert numbers["reward"] > numbers["reward_reference"]
        assert numbers["kl_bound"] == kl_bound(8)
        assert numbers["gold"] > 0.7


def test_a_text_that_others_began_is_gone_on_with() -> None:
    env = TextVectorEnv("exact", kl="full", num_envs=3)
    agent = BestOfN(env, BestOfNConfig(n=4), 0)
    observation, _ = env.reset(seed=0)
    agent.predict(observation)
    observation, *_ = env.step({"token": np.array([2, 3, 4]), "logprob": np.full(3, -1.0)})
    action, _ = agent.predict(observation)
    assert env.action_space.contains({"token": action["token"], "logprob": action["logprob"].astype(np.float32)})
    assert bool((action["logprob"] <= 0).all())


def test_what_it_cannot_be_made_of_is_refused(tmp_path: Path) -> None:
    env = TextVectorEnv("exact", kl="full")
    with pytest.raises(UsageError, match=r"BestOfNConfig.n is 0, expected a whole number in \[1, inf\)"):
        BestOfNConfig(n=0)
    with pytest.raises(UsageError, match="takes a BestOfNConfig, got a PPOConfig"):
        BestOfN(env, PPOConfig(), 0)  # type: ignore[arg-type]  # On purpose.
    with pytest.raises(UsageError, match="leave `data` out"):
        BestOfN(env, BestOfNConfig(), 0, data="preferences")  # type: ignore[arg-type]  # On purpose.
    BestOfN(env, BestOfNConfig(), 0).save(tmp_path / "agent")
    file = tmp_path / "agent" / "agent.json"
    file.write_text(file.read_text().replace("best-of-n", "best-of-m"))
    with pytest.raises(UsageError, match="holds the agent 'best-of-m'"):
        BestOfN.load(tmp_path / "agent", env)


def test_a_run_on_exact_tells_its_share_by_enumeration(tmp_path: Path) -> None:
    config = prepare(RLHFConfig(task="exact", agent="best-of-n", reward="gold", tokens=500, test_samples=64)).config

    class Nobody:
        def progress(self, *_: object) -> None: ...
        def end(self, *_: object) -> None: ...
        def stopping(self) -> bool:
            return False

    with RunFolder.create(tmp_path / "run", config.to_json(), threads=1, created="2026-01-01") as folder:
        summary = Loop(prepare(config), folder, Nobody()).run()
    assert summary["gold_after"] > summary["gold_before"] + 0.2
    env = TextVectorEnv("exact", kl="full")
    policy = BestOfN(env, BestOfNConfig(), 0).response_logprobs(env.task)
    rewards = all_rewards(env.task, env.reward_function, env.reference)
    optimum = exact_optimum(env.task, env.reference, env.reward_function, env.beta)
    reference = all_logprobs(env.task, env.reference).double()
    start, reached = (objective_of(each, reference, rewards, env.beta) for each in (reference, policy))
    share = float((reached.objective - start.objective) / (optimum.value.objective - start.objective))
    assert summary["share"] == summary["reward_share"] == pytest.approx(share, abs=1e-5)
    assert summary["kl"] == pytest.approx(float(reached.kl), abs=1e-5)
    assert 0 < summary["kl"] < kl_bound(16)
    distance = float(total_variation(policy, optimum.logprobs).mean())
    assert summary["total_variation"] == pytest.approx(distance, abs=1e-5)
    # What was drawn agrees: J = E[r] − β·KL.
    assert summary["objective"] + env.beta * summary["kl"] == pytest.approx(summary["reward_after"], abs=0.15)
    with pytest.raises(UsageError, match="does not tell how likely its tokens are"):
        of_run(tmp_path / "run")


def test_elsewhere_its_distribution_stays_unknown() -> None:
    env = TextVectorEnv("classify", kl="full")
    agent = BestOfN(env, BestOfNConfig(n=2), 0)
    with pytest.raises(UsageError, match="'classify' does not list all its prompts"):
        agent.response_logprobs(env.task)
    before, after = (
        evaluate(
            policy,
            env.task,
            env.reference,
            env.reward_function,
            prompts=prompts_of(env.task, env.task.fixed_prompts("test", 4)),
            samples_per_prompt=2,
            generator=torch.Generator(),
        )
        for policy in (ReferencePolicy(env.reference), agent)
    )
    numbers = finite(Judge(env.task, env.reference, env.reward_function, Seeds(0)).results(agent, before, after))
    assert numbers["gold_after"] is not None
    unknown = ("kl", "objective", "share", "reward_share", "total_variation")
    assert [numbers[name] for name in unknown] == [None] * len(unknown)
