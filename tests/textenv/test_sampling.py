from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textenv import enumeration, models
from textenv.decoding import drawn_logits, next_token_logprobs, spread, token_logprobs
from textenv.errors import UsageError
from textenv.evaluation import evaluate
from textenv.language_model import LanguageModel
from textenv.rewards import GoldReward
from textenv.sampling import NEUTRAL, Sampling
from textenv.tasks.exact import Exact

PROBABILITIES = torch.tensor([[0.1, 0.4, 0.2, 0.3]])


def kept(sampling: Sampling, probabilities: torch.Tensor = PROBABILITIES) -> list[int]:
    allowed = sampling.allowed(probabilities.log())
    return list(range(probabilities.shape[1])) if allowed is None else allowed[0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("sampling", "tokens"),
    [
        (NEUTRAL, [0, 1, 2, 3]),
        (Sampling(top_k=1), [1]),
        (Sampling(top_k=3), [1, 2, 3]),
        (Sampling(top_k=9), [0, 1, 2, 3]),
        (Sampling(top_p=0.4), [1]),
        (Sampling(top_p=0.41), [1, 3]),
        (Sampling(top_p=0.71), [1, 2, 3]),
        (Sampling(top_p=0.9), [1, 2, 3]),
        # Of the two likeliest tokens alone the first holds 4/7 = 0.571 …
        (Sampling(top_k=2, top_p=0.57), [1]),
        (Sampling(top_k=2, top_p=0.58), [1, 3]),
        # … and at temperature 1/2, where probabilities are squared, 16/25 = 0.64.
        (Sampling(temperature=0.5, top_k=2, top_p=0.63), [1]),
        (Sampling(temperature=0.5, top_k=2, top_p=0.65), [1, 3]),
    ],
)
def test_tokens_that_are_kept(sampling: Sampling, tokens: list[int]) -> None:
    assert kept(sampling) == tokens


def test_tokens_as_likely_as_the_last_of_the_likeliest_stay() -> None:
    assert kept(Sampling(top_k=1), torch.tensor([[0.3, 0.4, 0.4]])) == [1, 2]


def test_what_is_left_is_renormalised() -> None:
    sampling = Sampling(temperature=0.5, top_k=2)
    logits = PROBABILITIES.log()
    drawn = torch.softmax(sampling.scaled(logits, sampling.allowed(logits)), dim=1)
    torch.testing.assert_close(drawn, torch.tensor([[0, 16 / 25, 0, 9 / 25]]))


@given(
    st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=12),
    st.integers(1, 12),
    st.floats(0.01, 1),
    st.floats(0.2, 3),
)
def test_the_likeliest_token_always_stays_and_the_nucleus_holds_enough(
    logits: list[float], top_k: int, top_p: float, temperature: float
) -> None:
    row = torch.tensor([logits])
    allowed = Sampling(temperature, top_k, top_p).allowed(row)
    assert allowed is not None
    assert bool(allowed[0, row.argmax()])
    if top_k >= len(logits):
        assert float(torch.softmax(row / temperature, dim=1)[allowed].sum()) >= top_p - 1e-5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0, expected a number in (0, inf)"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": 0}, "top_k is 0, expected 1 or more"),
        ({"top_p": 0.0}, "top_p is 0.0, expected a number in (0, 1]"),
        ({"top_p": 1.1}, "top_p is 1.1"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as error:
        Sampling(**wrong)  # type: ignore[arg-type]
    assert message in str(error.value)


def policy_of(sampling: Sampling) -> LanguageModel:
    reference = models.load("exact")
    return LanguageModel("policy", reference.model, reference.tokenizer, sampling)


LAGGED = models.load("exact").copy()
with torch.no_grad():
    LAGGED.model.get_output_embeddings().weight.mul_(-1)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(top_k=3),
        Sampling(top_p=0.8),
        Sampling(1.3, 5, 0.9),
        Sampling(top_p=0.8, nucleus_of=LAGGED.model),
    ],
    ids=["temperature", "top-k", "top-p", "all", "another's nucleus"],
)
def test_samples_tables_and_states_agree_on_the_distribution(sampling: Sampling) -> None:
    """Four ways to the same log-probabilities: as drawn, in one pass, in one pass without the kept sets, by state."""
    policy, prompts = policy_of(sampling), enumeration.all_prompts(Exact())
    sample = policy.sample(prompts, max_tokens=5, group_size=50, generator=torch.Generator().manual_seed(0))
    responses = sample.responses
    assert (responses.allowed is None) == (not sampling.restricts)
    torch.testing.assert_close(policy.logprobs(responses), sample.logprobs, atol=1e-5, rtol=1e-5)
    plain = type(responses)(responses.prompts, responses.ids, responses.mask)
    logits = drawn_logits(policy.model, plain, sampling)
    anew = spread(token_logprobs(logits, plain.ids[plain.mask]), plain.mask)
    torch.testing.assert_close(anew, sample.logprobs, atol=1e-5, rtol=1e-5)
    # Whoever draws neutrally, as the reference, is not cut down to what the policy could draw.
    reference = models.load("exact")
    torch.testing.assert_close(reference.logprobs(responses), reference.logprobs(plain))
    repeated = prompts.repeat(50)
    first = next_token_logprobs(policy.model, repeated.ids, repeated.mask, sampling)
    torch.testing.assert_close(first.gather(1, responses.ids[:, :1])[:, 0], sample.logprobs[:, 0], atol=1e-5, rtol=1e-5)
    assert bool((first == -torch.inf).any()) == sampling.restricts


@pytest.mark.parametrize("sampling", [Sampling(0.7, None, 0.8), Sampling(top_p=0.8, nucleus_of=LAGGED.model)])
def test_frequencies_and_the_measured_kl_are_those_of_the_enumerated_policy(sampling: Sampling) -> None:
    task, policy, reference = Exact(), policy_of(sampling), models.load("exact")
    prompts = enumeration.all_prompts(task)
    result = evaluate(
        type("Agent", (), {"language_model": policy}),
        task,
        reference,
        GoldReward(task),
        prompts=prompts,
        samples_per_prompt=2000,
        generator=torch.Generator().manual_seed(0),
    )
    logprobs = enumeration.all_logprobs(task, policy)
    truth = enumeration.objective_of(
        logprobs,
        enumeration.all_logprobs(task, reference),
        enumeration.all_rewards(task, GoldReward(task), reference),
        task.beta,
    )
    torch.testing.assert_close(logprobs.exp().sum(dim=1), torch.ones(len(prompts)), atol=1e-4, rtol=0)
    kl, error = result.kl.mean(), result.kl.std() / len(result.kl) ** 0.5
    assert abs(float(kl - truth.kl.mean())) < 4 * float(error)
    reward, error = result.reward.mean(), result.reward.std() / len(result.reward) ** 0.5
    assert abs(float(reward - truth.reward.mean())) < 4 * float(error)
