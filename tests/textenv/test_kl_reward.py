"""The two KL rewards: numbers worked out by hand, the identity between them, and what lying about them brings."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from textenv import enumeration, models
from textenv.decoding import next_token_logprobs
from textenv.env import TextEnv
from textenv.errors import UsageError
from textenv.evaluation import evaluate
from textenv.responses import Responses
from textenv.rewards import GoldReward
from textenv.tasks.exact import VOCABULARY, Exact, utility_deviation
from textenv.vector_env import TextVectorEnv

EOS, A, C = (VOCABULARY.index(word) for word in ("<eos>", "a", "c"))


class AlwaysTheSame(nn.Module):
    """<pad> and e have probability 1/16, <eos> and a 1/4, b, c and d 1/8, whatever came before."""

    def forward(self, hidden):
        logprobs = -math.log(2) * torch.tensor([4.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0])
        return logprobs.expand(*hidden.shape[:-1], 7)


@pytest.fixture(scope="module")
def known():
    """A reference that can be reckoned with in one's head."""
    reference = models.load("exact").copy()
    reference.model.set_output_embeddings(AlwaysTheSame())
    return reference


class OnePrompt(Exact):
    """Asks for one c."""

    def __init__(self):
        super().__init__()
        self.prompts = [[C]]


# "a c <eos>" has the one c and an end, but not the frame: 0.5 + 0.2.
SCORE = 0.7 / utility_deviation()
TOKENS = [A, C, EOS]
LOGPROBS = [math.log(1 / 2), math.log(1 / 4), 0.0]
# β = ½. log π_ref is −2 ln 2, −3 ln 2 and −2 ln 2, log π is −ln 2, −2 ln 2 and 0.
BY_HAND = {
    "reference": [-0.693147, -1.039721, -0.693147 + SCORE],
    "full": [-0.346574, -0.346574, -0.693147 + SCORE],
}


def actions(kl):
    if kl == "reference":
        return TOKENS
    return [{"token": token, "logprob": logprob} for token, logprob in zip(TOKENS, LOGPROBS, strict=True)]


@pytest.mark.parametrize("kl", ["reference", "full"])
class TestByHand:
    def test_stepping(self, known, kl):
        env = TextEnv(OnePrompt(), reference=known, beta=0.5, kl=kl)
        env.reset(seed=0)
        assert [env.step(action)[1] for action in actions(kl)] == pytest.approx(BY_HAND[kl], abs=1e-5)

    def test_an_episode_at_once(self, known, kl):
        env = TextEnv(OnePrompt(), reference=known, beta=0.5, kl=kl, reward="episode")
        env.reset(seed=0)
        steps = [env.step(action) for action in actions(kl)]
        assert [step[1] for step in steps] == pytest.approx([0.0, 0.0, sum(BY_HAND[kl])], abs=1e-5)
        assert steps[-1][4]["token_rewards"].tolist() == pytest.approx([*BY_HAND[kl], 0.0, 0.0], abs=1e-5)

    def test_many_side_by_side(self, known, kl):
        env = TextVectorEnv(OnePrompt(), num_envs=2, reference=known, beta=0.5, kl=kl)
        env.reset(seed=0)
        for action, expected in zip(actions(kl), BY_HAND[kl], strict=True):
            both = np.full(2, action) if kl == "reference" else {key: np.full(2, each) for key, each in action.items()}
            assert env.step(both)[1].tolist() == pytest.approx([expected] * 2, abs=1e-5)

    def test_whole_responses(self, known, kl):
        env = TextVectorEnv(OnePrompt(), reference=known, beta=0.5, kl=kl)
        responses = Responses.from_lists(enumeration.all_prompts(env.task), [TOKENS], pad_id=0)
        scores = env.score(responses, torch.tensor([LOGPROBS]))
        assert scores.token_rewards[0].tolist() == pytest.approx(BY_HAND[kl], abs=1e-5)


@pytest.mark.parametrize("impossible", [0.5, math.nan, math.inf, -math.inf])
def test_no_probability_is_above_one_or_no_number(known, impossible):
    env = TextVectorEnv(OnePrompt(), reference=known, kl="full")
    responses = Responses.from_lists(enumeration.all_prompts(env.task), [TOKENS], pad_id=0)
    with pytest.raises(UsageError, match="log-probability"):
        env.score(responses, torch.tensor([[-1.0, impossible, -1.0]]))


class Short(Exact):
    """259 responses to each prompt."""

    response_length = 3


class Enumerated:
    """Every response to every prompt of a short task, and what an environment pays for it."""

    def __init__(self, kl):
        self.env = TextVectorEnv(Short(), kl=kl)
        self.prompts = enumeration.all_prompts(self.env.task)
        self.responses = enumeration.all_responses(self.prompts, vocab_size=7, max_tokens=3, eos_id=EOS, pad_id=0)

    def logprobs(self, policy):
        """Of every token of every response, differentiable, and of whole responses (N, R)."""
        tree = enumeration.next_token_tree(policy, self.prompts, 3)
        return enumeration.response_logprobs(tree, EOS).double(), enumeration.expected_entropy(tree, EOS).mean()

    def paid(self, reported):
        """Returns (N, R) of an agent that reports these log-probabilities (B, T)."""
        return self.env.score(self.responses, reported).token_rewards.sum(dim=1).view(len(self.prompts), -1).double()


def other_policy():
    policy = models.load("exact").copy()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return policy


@torch.no_grad()
def test_the_expected_returns_differ_by_the_entropy():
    """E[R_full] = E[R_reference] + β·E[Σ_t H(π(·|s_t))], of what the environments pay."""
    policy = other_policy()
    full, reference = Enumerated("full"), Enumerated("reference")
    logprobs, entropy = full.logprobs(policy)
    probs, tokens = logprobs.exp(), policy.logprobs(full.responses)
    returns = [float((probs * each.paid(tokens)).sum(dim=1).mean()) for each in (full, reference)]
    beta = full.env.beta
    assert returns[0] == pytest.approx(returns[1] + beta * float(entropy), abs=1e-5)
    assert float(entropy) > 1
    objective = enumeration.exact_objective(
        full.env.task, policy, full.env.reference, full.env.reward_function, beta
    ).objective
    assert returns[0] == pytest.approx(float(objective), abs=1e-5)


class Agent:
    """Tells its distribution honestly, and of its choices whatever it likes."""

    def __init__(self, language_model, lie):
        self.policy = language_model
        self.lie = lie

    def logprobs(self, observation):
        ids, mask = (torch.from_numpy(observation[name]) for name in ("input_ids", "attention_mask"))
        return next_token_logprobs(self.policy.model, ids, mask.bool())

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        logprobs = self.logprobs(observation)
        token = logprobs.argmax(dim=1, keepdim=True)
        honest = logprobs.gather(1, token)[:, 0].numpy()
        return {"token": token[:, 0].numpy(), "logprob": np.full_like(honest, self.lie) if self.lie else honest}, None


def test_what_an_agent_reports_does_not_enter_its_evaluation():
    task, reference, policy = Exact(), models.load("exact"), other_policy()
    results = [
        evaluate(
            Agent(policy, lie),
            task,
            reference,
            GoldReward(task),
            prompts=enumeration.all_prompts(task),
            samples_per_prompt=50,
            generator=torch.Generator().manual_seed(0),
        )
        for lie in (None, -1e-3, -20.0)
    ]
    for result in results[1:]:
        assert result.responses.to_lists() == results[0].responses.to_lists()
        for name in ("logprobs", "reference_logprobs", "kl", "reward"):
            assert torch.equal(getattr(result, name), getattr(results[0], name))


def learned(report):
    """Ascends the expectation of what is paid for reports, over every response.

    Returns what the policy was paid on average at the end, and J.
    """
    game = Enumerated("full")
    policy = game.env.reference.copy()
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=5e-3)
    for _ in range(20):
        logprobs, _ = game.logprobs(policy)
        paid = game.paid(report(policy.logprobs(game.responses)))
        loss = -(logprobs.exp() * (paid - paid.mean(dim=1, keepdim=True))).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        average = float((logprobs.exp() * paid).sum(dim=1).mean())
    env = game.env
    value = enumeration.exact_objective(env.task, policy, env.reference, env.reward_function, env.beta)
    return average, float(value.objective)


@pytest.fixture(scope="module")
def honest():
    return learned(lambda logprobs: logprobs)


def test_an_honest_agent_is_paid_what_it_is_worth(honest):
    env = Enumerated("full").env
    start = enumeration.exact_objective(env.task, env.reference, env.reference, env.reward_function, env.beta)
    assert honest[0] == pytest.approx(honest[1], abs=0.1)
    assert honest[1] > float(start.objective) + 0.3


@pytest.mark.parametrize("lie", [-1e-3, -20.0])
def test_lying_while_learning_gains_nothing(honest, lie):
    """To seem unlikely is paid well, and to seem certain badly; neither is worth more."""
    paid, objective = learned(lambda logprobs: torch.full_like(logprobs, lie))
    assert (paid > honest[0]) == (lie < -1)
    assert objective < honest[1] - 0.1
