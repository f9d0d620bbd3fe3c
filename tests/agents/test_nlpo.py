from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from agents.nlpo import NLPO, NLPOConfig
from textenv.decoding import predictions
from textenv.enumeration import all_logprobs, all_rewards, exact_objective, exact_optimum
from textenv.rewards import GoldReward
from textenv.sampling import Sampling
from textenv.vector_env import TextVectorEnv


def agent(**settings: Any) -> NLPO:
    return NLPO(TextVectorEnv("exact", kl="full"), NLPOConfig(n_prompts=4, group_size=4, **settings), 0)


def test_draws_the_masks_nucleus_only_and_renews_the_mask_now_and_then() -> None:
    learner = agent(mask_every=3, learning_rate=1e-2)
    masks, policies = [], []

    def look(_: Any, metrics: dict[str, float]) -> bool:
        masks.append(torch.cat([weight.flatten() for weight in learner.mask.parameters()]))
        policies.append(torch.cat([weight.detach().flatten() for weight in learner.language_model.model.parameters()]))
        return len(masks) < 7

    learner.learn(10_000, look)
    assert learner.iterations == 7
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], policies[2])
    assert not torch.equal(masks[2], masks[1])
    assert torch.equal(masks[4], masks[2])
    assert not torch.equal(masks[4], policies[4])
    assert torch.equal(masks[5], policies[5])

    prompts = learner.env.sample_prompts(4)
    drawn = learner.language_model.sample(
        prompts, max_tokens=5, group_size=64, generator=torch.Generator().manual_seed(0)
    ).responses
    with torch.no_grad():
        nucleus = Sampling(top_p=0.9).allowed(predictions(learner.mask, drawn).logits)
    assert nucleus is not None
    assert bool(nucleus.gather(1, drawn.ids[drawn.mask][:, None]).all())
    assert not bool(nucleus.all())


@pytest.mark.parametrize("separate_value", [False, True])
def test_with_adapters_the_mask_shares_all_that_is_not_trained(separate_value: bool) -> None:
    learner = agent(lora_rank=2, mask_every=1, learning_rate=1e-2, separate_value=separate_value)
    theirs = {name: weight.data_ptr() for name, weight in learner.env.reference.model.named_parameters()}
    before = copy.deepcopy(learner.env.reference.model.state_dict())
    learner.learn(10_000, lambda *_: False)
    policy, mask = (dict(model.named_parameters()) for model in (learner.language_model.model, learner.mask))
    adapters = [name for name in policy if ".lora_" in name]
    assert {weight.data_ptr() for name, weight in mask.items() if name not in adapters} == set(theirs.values())
    assert adapters
    for name in adapters:
        assert mask[name].data_ptr() != policy[name].data_ptr()
        assert torch.equal(mask[name], policy[name])  # It has just been copied.
    for name, buffer in learner.mask.named_buffers():
        assert buffer is learner.env.reference.model.get_buffer(name)
    # Copying wrote to none of what is shared, and a checkpoint keeps the mask's adapters alone.
    assert all(torch.equal(weight, before[name]) for name, weight in learner.env.reference.model.state_dict().items())
    kept = {name.removeprefix("mask.") for name in learner.tensors() if name.startswith("mask.")}
    assert kept == set(adapters)


def test_without_adapters_the_mask_is_a_whole_model_and_kept_so() -> None:
    learner = agent()
    theirs = {weight.data_ptr() for weight in learner.env.reference.model.parameters()}
    trained = {weight.data_ptr() for weight in learner.policy.parameters()}
    assert not {weight.data_ptr() for weight in learner.mask.parameters()} & (theirs | trained)
    kept = {name.removeprefix("mask.") for name in learner.tensors() if name.startswith("mask.")}
    assert kept == {name for name, _ in learner.mask.named_parameters()}


def test_the_mask_takes_some_of_the_optimum_away() -> None:
    """The best policy that draws from the reference's nucleus, by the same formula as J* on fewer responses."""
    learner = agent()
    env = learner.env
    reference = all_logprobs(env.task, env.reference).double()
    allowed = all_logprobs(env.task, learner.language_model).isfinite()
    rewards = all_rewards(env.task, GoldReward(env.task), env.reference)
    tilted = (reference + rewards / env.beta).masked_fill(~allowed, -torch.inf)
    reachable = float((env.beta * tilted.logsumexp(dim=1)).mean())
    judged = (env.reference, env.reward_function, env.beta)
    best = float(exact_optimum(env.task, *judged).value.objective)
    start = float(exact_objective(env.task, env.reference, *judged).objective)
    assert (reachable - start) / (best - start) == pytest.approx(SHARE_LEFT, abs=0.005)


SHARE_LEFT = 0.977
"""Of what could be gained, with the nucleus of 0.9 of the reference."""
