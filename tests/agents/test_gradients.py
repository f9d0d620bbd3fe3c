"""The gradients that agents follow on Exact-v0, against what enumeration gives in expectation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from agents.grpo import GRPO, GRPOConfig
from agents.language_agent import LanguageModelAgent
from agents.rloo import RLOO, RLOOConfig
from textenv.enumeration import all_logprobs, all_prompts, all_responses, all_rewards, objective_of
from textenv.kl import k3
from textenv.responses import Responses
from textenv.vector_env import TextVectorEnv

GROUP_SIZE = 3


class Caught(Exception):
    """Ends learning at the first step."""


def gradient_of(losses: dict[str, Tensor], agent: LanguageModelAgent) -> Tensor:
    parameters = list(agent.policy.parameters())
    gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), parameters)
    return torch.cat([gradient.flatten() for gradient in gradients])


def first_gradient(agent: LanguageModelAgent) -> Tensor:
    """What the agent's first step would follow."""
    caught: list[Tensor] = []

    def step(losses: dict[str, Tensor]) -> float:
        caught.append(gradient_of(losses, agent))
        raise Caught

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent, "step", step)
        with pytest.raises(Caught):
            agent.learn(1)
    return caught[0]


def moved(agent_class: type[LanguageModelAgent], config: Any) -> LanguageModelAgent:
    """An agent that has left the reference, so that the KL has a gradient."""
    agent = agent_class(TextVectorEnv("exact", kl="full"), config, 0)
    with torch.no_grad():
        agent.language_model.model.lm_head.weight.mul_(1.3)
    return agent


class Enumerated:
    """Every response to every prompt under an agent's policy, token by token; differentiable."""

    def __init__(self, agent: LanguageModelAgent) -> None:
        env, reference = agent.env, agent.env.reference
        prompts = all_prompts(env.task)
        self.responses: Responses = all_responses(
            prompts,
            vocab_size=reference.vocab_size,
            max_tokens=env.task.response_length,
            eos_id=reference.eos_id,
            pad_id=reference.pad_id,
        )
        said = agent.policy(self.responses)
        self.token_logprobs = said if isinstance(said, torch.Tensor) else said.logprobs
        self.reference_logprobs = reference.logprobs(self.responses)
        self.logprobs = self.token_logprobs.sum(dim=1).view(len(prompts), -1)
        self.rewards = all_rewards(env.task, env.reward_function, reference).float()
        self.objective = objective_of(
            self.logprobs, all_logprobs(env.task, reference), self.rewards, env.beta
        ).objective

    def expectation(self, of_responses: Tensor) -> Tensor:
        """E over prompts and the policy, without the gradient of the probabilities."""
        return (self.logprobs.detach().exp() * of_responses.view(self.logprobs.shape)).sum(dim=1).mean()


def agreement(sampled: Tensor, expected: Tensor) -> tuple[float, float]:
    """The cosine, and the length of what is sampled along what is expected, 1 where it is as long."""
    dot = float(sampled @ expected)
    return dot / float(sampled.norm() * expected.norm()), dot / float(expected @ expected)


@pytest.mark.slow
def test_rloo_follows_the_gradient_of_the_objective() -> None:
    agent = moved(RLOO, RLOOConfig(n_prompts=4096, group_size=GROUP_SIZE, n_minibatches=1))
    sampled = first_gradient(agent)
    cosine, length = agreement(sampled, gradient_of({"loss": -Enumerated(agent).objective}, agent))
    assert cosine > 0.97
    assert length == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_grpo_follows_what_is_published_which_is_not_the_gradient_of_the_objective() -> None:
    agent = moved(GRPO, GRPOConfig(n_prompts=4096, group_size=GROUP_SIZE, n_minibatches=1, scale_rewards=False))
    sampled = first_gradient(agent)
    every = Enumerated(agent)
    lengths = every.responses.lengths
    advantages = every.rewards - (every.logprobs.detach().exp() * every.rewards).sum(dim=1, keepdim=True)
    # The group's mean holds the response itself.
    shrunk = (1 - 1 / GROUP_SIZE) * advantages.flatten()
    policy = every.expectation(-shrunk * every.token_logprobs.sum(dim=1) / lengths)
    kl = every.expectation(k3(every.token_logprobs, every.reference_logprobs).sum(dim=1) / lengths)
    expected = gradient_of({"policy": policy, "kl": agent.env.beta * kl}, agent)
    cosine, length = agreement(sampled, expected)
    assert cosine > 0.97
    assert length == pytest.approx(1, abs=0.05)
    every = Enumerated(agent)
    bias, _ = agreement(expected, gradient_of({"loss": -every.objective}, agent))
    assert bias < 0.9
