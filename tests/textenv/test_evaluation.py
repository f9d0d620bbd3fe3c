import numpy as np
import pytest
import torch

from textenv import decoding, models
from textenv.enumeration import exact_objective
from textenv.errors import TextenvError
from textenv.evaluation import evaluate, logprobs_under
from textenv.language_model import LanguageModel
from textenv.rewards import GoldReward
from textenv.tasks.base import prompts_of
from textenv.tasks.exact import Exact

TASK = Exact()
REFERENCE = models.load("exact")
REWARD = GoldReward(TASK)
PROMPTS = prompts_of(TASK, TASK.fixed_prompts("test", 4))


def other_policy() -> LanguageModel:
    copy = REFERENCE.copy()
    with torch.no_grad():
        copy.model.get_output_embeddings().weight.mul_(0.7)
    return copy


class Cached:
    """A policy that shows its language model."""

    def __init__(self, language_model: LanguageModel) -> None:
        self.language_model = language_model


class Stepwise:
    """The same policy, known by its distribution alone; what it says of its choices is a lie."""

    def __init__(self, language_model: LanguageModel) -> None:
        self.inner = language_model

    def logprobs(self, observation):
        ids = torch.from_numpy(observation["input_ids"])
        return decoding.next_token_logprobs(
            self.inner.model, ids, torch.from_numpy(observation["attention_mask"]).bool()
        )

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        rows = len(observation["input_ids"])
        return {"token": np.zeros(rows, dtype=np.int64), "logprob": np.zeros(rows)}, None


def evaluated(policy, samples=200, seed=0):
    return evaluate(
        policy,
        TASK,
        REFERENCE,
        REWARD,
        prompts=PROMPTS,
        samples_per_prompt=samples,
        generator=torch.Generator().manual_seed(seed),
    )


def test_both_ways_of_asking_a_policy_give_the_same():
    policy = other_policy()
    fast, slow = evaluated(Cached(policy)), evaluated(Stepwise(policy))
    assert fast.responses.to_lists() == slow.responses.to_lists()
    for name in ("logprobs", "reference_logprobs", "kl", "reward"):
        torch.testing.assert_close(getattr(fast, name), getattr(slow, name), atol=1e-4, rtol=1e-4)
    for way in (Cached(policy), Stepwise(policy)):
        again = logprobs_under(way, fast.responses, TASK, REFERENCE)
        torch.testing.assert_close(again, fast.logprobs, atol=1e-4, rtol=1e-4)


def test_the_objective_is_that_of_enumeration():
    policy = other_policy()
    truth = exact_objective(TASK, policy, REFERENCE, REWARD, TASK.beta)
    result = evaluated(Cached(policy), samples=4000)
    for values, expected in ((result.kl, truth.kl), (result.reward, truth.reward)):
        stderr = float(values.std()) / len(values) ** 0.5
        assert abs(float(values.mean()) - float(expected)) < 4 * stderr


def test_the_reference_has_no_kl_to_itself_and_equal_noise_pairs_policies():
    first, second = evaluated(Cached(REFERENCE)), evaluated(Cached(REFERENCE))
    assert float(first.kl.abs().max()) < 1e-5
    assert torch.equal(first.responses.ids, second.responses.ids)
    near = REFERENCE.copy()
    with torch.no_grad():
        near.model.get_output_embeddings().weight.mul_(0.999)
    paired = evaluated(Cached(near))
    same = [a == b for a, b in zip(first.responses.to_lists(), paired.responses.to_lists(), strict=True)]
    assert np.mean(same) > 0.9


def test_noise_pairs_policies_on_later_prompts_too():
    """The noise of a part does not depend on how long the responses to the parts before it were."""
    short = REFERENCE.copy()
    with torch.no_grad():
        short.model.get_output_embeddings().weight[REFERENCE.eos_id].mul_(3)
    long, brief, again = (evaluated(Cached(policy), samples=512) for policy in (REFERENCE, short, REFERENCE))
    assert long.responses.to_lists() == again.responses.to_lists()
    rows = slice(2 * 512, None)
    assert brief.responses.lengths[: 2 * 512].float().mean() < long.responses.lengths[: 2 * 512].float().mean()
    first = torch.stack([each.responses.ids[rows, 0] for each in (long, brief)])
    unended = (first != REFERENCE.eos_id).all(dim=0)
    # With noise of their own they would agree on about a third of the first tokens.
    assert (first[0] == first[1])[unended].float().mean() > 0.7


def test_a_failing_reward_is_named_with_its_prompt():
    def broken(responses):
        return torch.full((len(responses),), float("nan"))

    broken.name = "broken"
    with pytest.raises(TextenvError, match=r"prompt 'c'.*broken"):
        evaluate(
            Cached(REFERENCE),
            TASK,
            REFERENCE,
            broken,
            prompts=PROMPTS,
            samples_per_prompt=2,
            generator=torch.Generator().manual_seed(0),
        )


def test_progress_counts_prompts():
    seen = []
    evaluate(
        Cached(REFERENCE),
        TASK,
        REFERENCE,
        REWARD,
        prompts=prompts_of(TASK, TASK.fixed_prompts("test", 3)),
        samples_per_prompt=256,
        generator=torch.Generator().manual_seed(0),
        progress=lambda done, total, numbers: seen.append((done, total, set(numbers))),
    )
    assert seen == [(2, 3, {"reward"}), (3, 3, {"reward"})]


@pytest.mark.parametrize("samples", [1, 3])
def test_rows_are_prompt_major(samples):
    result = evaluated(Cached(REFERENCE), samples=samples)
    assert result.responses.group_size == samples
    assert result.gold is not None
    torch.testing.assert_close(result.gold.utility, result.reward)


class Choosing:
    """The same policy again, which tells nothing but its choices."""

    def __init__(self, language_model: LanguageModel) -> None:
        self.inner = Stepwise(language_model)
        self.generator = torch.Generator().manual_seed(0)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        tokens = torch.multinomial(self.inner.logprobs(observation).exp(), 1, generator=self.generator)[:, 0]
        return {"token": tokens.numpy(), "logprob": np.full(len(tokens), 5.0)}, None


def test_a_policy_that_tells_nothing_gets_its_scores_and_nothing_else():
    policy = other_policy()
    found = evaluated(Choosing(policy), samples=400)
    truth = exact_objective(TASK, policy, REFERENCE, REWARD, TASK.beta)
    assert float(found.reward.mean()) == pytest.approx(float(truth.reward), abs=0.2)
    torch.testing.assert_close(found.gold.utility, found.reward)
    assert found.kl.isnan().all()
    assert torch.equal(found.logprobs.isnan(), found.responses.mask)
    torch.testing.assert_close(found.reference_logprobs, REFERENCE.logprobs(found.responses))
