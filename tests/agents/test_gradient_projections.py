"""Twenty directions in which the gradients that agents follow are held against the gradient of J, by enumeration.

A policy on Exact-v0 is a table of log-probabilities, and so is how they change along a direction in the space of its
output layer's weights. With both tables in the place of the model, the agents' own code gives the projections of
its gradients on the directions, from millions of responses in seconds. The directions are standard normal, so
that the square of a projection is that of the gradient's length on average.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from agents import dr_grpo, rloo
from agents.a2c import A2C, A2CConfig
from agents.dr_grpo import DrGRPO, DrGRPOConfig
from agents.exact_kl import ExactKLOutputs
from agents.expert_iteration import ExpertIteration, ExpertIterationConfig
from agents.functional.advantages import group_relative, leave_one_out
from agents.grpo import GRPO, GRPOConfig
from agents.language_agent import LanguageModelAgent
from agents.nlpo import NLPO, NLPOConfig
from agents.online_dpo import OnlineDPO, OnlineDPOConfig
from agents.policy import PolicyOutputs
from agents.ppo import PPO, PPOConfig
from agents.ppo_ptx import PPOPtx, PPOPtxConfig
from agents.reinforce import Reinforce, ReinforceConfig
from agents.rloo import RLOO, RLOOConfig
from textenv.decoding import Sample, predictions, spread, token_logprobs
from textenv.enumeration import (
    all_prompts,
    all_responses,
    all_rewards,
    objective_of,
)
from textenv.episodes import Scores
from textenv.kl import full_kl
from textenv.responses import Prompts, Responses
from textenv.sampling import NEUTRAL, Sampling
from textenv.tasks.exact import EOS, PAD
from textenv.vector_env import TextVectorEnv

DIRECTIONS = 20
LARGEST_STANDARD_ERROR = 0.02
"""Of a projection, as a share of the length of J's gradient."""
SIGNIFICANCE = 0.01
"""That a right estimator is called wrong in any of the directions."""
BATCHES, PROMPTS, GROUP_SIZE = 32, 4096, 4


class World:
    """Exact-v0 and a policy that has left its reference, so that the KL has a gradient, as tables of all states.

    Args:
        nucleus: of the reference, which the policy does not leave; of all tokens, where nothing is said.
    """

    def __init__(self, nucleus: Sampling = NEUTRAL) -> None:
        self.env = TextVectorEnv("exact", kl="full")
        self.length, self.others = self.env.task.response_length, self.env.reference.vocab_size - 1
        self.prompts = all_prompts(self.env.task)
        self.responses = all_responses(
            self.prompts, vocab_size=self.others + 1, max_tokens=self.length, eos_id=EOS, pad_id=PAD
        )
        self.rewards = all_rewards(self.env.task, self.env.reward_function, self.env.reference).float()
        powers = self.others ** torch.arange(self.length + 1)
        self.starts = powers.cumsum(0) - powers
        """Where the prefixes of each length begin among all of a prompt's; those of whole responses likewise."""

        policy = self.env.reference.copy().model
        with torch.no_grad():
            policy.lm_head.weight.mul_(1.3)
            logits, hidden = self._in_all_states(policy)
            self.reference_logits, _ = self._in_all_states(self.env.reference.model)
        generator = torch.Generator().manual_seed(0)
        self.directions = torch.randn((DIRECTIONS, *policy.lm_head.weight.shape), generator=generator)
        self.logits = nucleus.scaled(logits, nucleus.allowed(self.reference_logits))
        self.slopes = torch.einsum("dvh,sh->svd", self.directions, hidden)
        """Of each token in each state (S, V), and along each direction (S, V, 20)."""
        self.hidden = hidden

    def _in_all_states(self, model: Any) -> tuple[Tensor, Tensor]:
        """Logits and hidden states, prompt after prompt, shorter prefixes first."""
        # The responses that spend the budget, but for their last token, come through every state.
        count = len(self.responses) // len(self.prompts)
        longest = torch.arange(len(self.responses)).view(-1, count)[:, int(self.starts[-1]) :: self.others].flatten()
        rows = Responses(self.prompts, self.responses.ids[longest], self.responses.mask[longest])
        said = predictions(model, rows)
        states = self.states(rows)[rows.mask]
        tables = [each.new_zeros((int(states.max()) + 1, each.shape[1])) for each in said]
        for table, each in zip(tables, said, strict=True):
            table[states] = each
        return tables[0], tables[1]

    def numbers(self, prompts: Prompts) -> Tensor:
        """Which of the four prompts each one is; their lengths and last letters tell them apart."""
        known = self.prompts.trimmed().ids[:, -1] + 10 * self.prompts.mask.sum(dim=1)
        return (prompts.ids[:, -1:] + 10 * prompts.mask.sum(dim=1, keepdim=True) == known).int().argmax(dim=1)

    def states(self, responses: Responses) -> Tensor:
        """The row of the tables for the state before each token, (B, T)."""
        digits = torch.where(responses.ids > EOS, responses.ids - 1, responses.ids)
        prefix = torch.zeros(len(responses), dtype=torch.long)
        columns = []
        for t in range(responses.ids.shape[1]):
            columns.append(self.starts[t] + prefix)
            prefix = prefix * self.others + digits[:, t]
        prompt = self.numbers(responses.prompts).repeat_interleave(responses.group_size)
        return torch.stack(columns, dim=1) + self.starts[-1] * prompt[:, None]


class Sampler:
    """Takes the place of a language model that is only sampled from."""

    def __init__(self, world: World) -> None:
        self.world = world
        logprobs = torch.log_softmax(world.logits, dim=1)[world.states(world.responses)].gather(
            2, world.responses.ids[:, :, None]
        )[:, :, 0]
        self.logprobs = logprobs.masked_fill(~world.responses.mask, 0.0)
        self.cumulative = self.logprobs.double().sum(dim=1).exp().view(len(world.prompts), -1).cumsum(dim=1)

    def sample(
        self,
        prompts: Prompts,
        *,
        group_size: int,
        generator: torch.Generator,
        max_tokens: int,
        keep_states: bool = False,
    ) -> Sample:
        every, rows = self.world.responses, self.world.numbers(prompts)
        drawn = torch.empty((len(prompts), group_size), dtype=torch.long)
        for number, cumulative in enumerate(self.cumulative):
            here = rows == number
            uniform = torch.rand((int(here.sum()), group_size), generator=generator, dtype=torch.float64)
            drawn[here] = torch.searchsorted(cumulative, uniform * cumulative[-1]) + number * len(cumulative)
        index = drawn.flatten()
        logprobs = self.logprobs[index]
        return Sample(Responses(prompts, every.ids[index], every.mask[index]), logprobs, -logprobs, None)


class Linearised(nn.Module):
    """Takes the place of a policy: its log-probabilities along the directions, up to the first order.

    Or, with `whole`, as the output layer's weights change in whatever way.
    """

    def __init__(self, world: World, *, whole: bool = False) -> None:
        super().__init__()
        self.world = world
        self.language_model = Sampler(world)
        self.along = nn.Parameter(torch.zeros(world.directions.shape[1:] if whole else DIRECTIONS))
        self.value_head = nn.Linear(1, 1)

    def logits(self, responses: Responses) -> tuple[Tensor, Tensor]:
        states = self.world.states(responses)[responses.mask]
        whole = self.along.ndim == 2
        moved = self.world.hidden[states] @ self.along.T if whole else self.world.slopes[states] @ self.along
        return self.world.logits[states] + moved, states

    def chosen(self, responses: Responses) -> Tensor:
        logits, _ = self.logits(responses)
        return spread(token_logprobs(logits, responses.ids[responses.mask]), responses.mask)


class LinearisedActor(Linearised):
    def forward(self, responses: Responses) -> Tensor:
        return self.chosen(responses)

    def recall(self, sample: Sample, chunks: int) -> Tensor:
        return sample.logprobs


class LinearisedCritic(Linearised):
    def forward(self, responses: Responses) -> PolicyOutputs:
        chosen = self.chosen(responses)
        return PolicyOutputs(chosen, self.value_head.bias.expand(chosen.shape).masked_fill(~responses.mask, 0.0))

    @torch.no_grad()
    def recall(self, sample: Sample, chunks: int) -> PolicyOutputs:
        return self(sample.responses)


class LinearisedWithReference(Linearised):
    def forward(self, responses: Responses) -> ExactKLOutputs:
        logits, states = self.logits(responses)
        kl = spread(full_kl(logits, self.world.reference_logits[states]), responses.mask)
        chosen = spread(token_logprobs(logits, responses.ids[responses.mask]), responses.mask)
        return ExactKLOutputs(chosen, kl)

    @torch.no_grad()
    def evaluate(self, responses: Responses, chunks: int) -> ExactKLOutputs:
        return self(responses)


def score(world: World, responses: Responses, logprobs: Tensor) -> Scores:
    """What the environment pays, from the tables."""
    states = world.states(responses)
    table = torch.log_softmax(world.reference_logits, dim=1)
    reference = table[states].gather(2, responses.ids[:, :, None])[:, :, 0].masked_fill(~responses.mask, 0.0)
    rewards = world.env.reward_function(responses)
    paid = -world.env.beta * (logprobs - reference)
    paid[torch.arange(len(paid)), responses.lengths - 1] += rewards
    return Scores(rewards, reference, paid, None)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def truth(world: World) -> tuple[Tensor, float]:
    projections, gradient = objective_gradient(world)
    return projections, float(gradient.norm())


def objective_gradient(world: World) -> tuple[Tensor, Tensor]:
    """The projections of the gradient of −J, and the whole of it in the space of the output layer's weights."""
    policy = LinearisedActor(world)
    whole = nn.Parameter(torch.zeros(world.directions.shape[1:]))
    states = world.states(world.responses)
    table = torch.log_softmax(world.logits + world.slopes @ policy.along + world.hidden @ whole.T, dim=1)
    reference = torch.log_softmax(world.reference_logits, dim=1)
    chosen, base = (
        each[states].gather(2, world.responses.ids[:, :, None])[:, :, 0].masked_fill(~world.responses.mask, 0.0)
        for each in (table, reference)
    )
    logprobs, reference_logprobs = (each.sum(dim=1).view(len(world.prompts), -1) for each in (chosen, base))
    objective = objective_of(logprobs, reference_logprobs, world.rewards, world.env.beta).objective
    projections, gradient = torch.autograd.grad(-objective, (policy.along, whole))
    torch.testing.assert_close(projections, torch.einsum("dvh,vh->d", world.directions, gradient), rtol=1e-3, atol=1e-4)
    return projections, gradient


def sampled(world: World, agent_class: type[LanguageModelAgent], config: Any, policy: Linearised) -> Tensor:
    """What the agent's steps would follow in each of many rollouts, (batches, 20) or (batches, V, H)."""
    agent = agent_class(world.env, config, 0)
    agent.policy = policy
    gradients: list[Tensor] = []

    def step(self: LanguageModelAgent, losses: dict[str, Tensor]) -> float:
        gradients.append(torch.autograd.grad(torch.stack(list(losses.values())).sum(), policy.along)[0])
        return 0.0

    def draw(count: int) -> Prompts:
        return world.prompts[torch.from_numpy(world.env.np_random.integers(len(world.prompts), size=count))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModelAgent, "step", step)
        patch.setattr(world.env, "sample_prompts", draw)
        patch.setattr(world.env, "score", lambda responses, logprobs: score(world, responses, logprobs))
        agent.learn(10**12, lambda *_: len(gradients) < BATCHES)
    return torch.stack(gradients).double()


def p_value(gradients: Tensor, expected: Tensor, length: float) -> float:
    """The least of the directions' p-values, by Bonferroni: that right projections lie as far from what is expected.

    Of so many responses that the test would see a bias of a few hundredths.
    """
    errors = gradients.std(dim=0) / len(gradients) ** 0.5
    assert float(errors.max()) <= LARGEST_STANDARD_ERROR * length
    distances = (gradients.mean(dim=0) - expected.double()).abs() / errors
    return min(1.0, DIRECTIONS * 2 * float(stats.t.sf(float(distances.max()), len(gradients) - 1)))


ROLLOUT: dict[str, Any] = {"n_prompts": PROMPTS, "group_size": GROUP_SIZE}
ONE_STEP: dict[str, Any] = {"n_epochs": 1, "n_minibatches": 1}


@pytest.mark.parametrize(
    ("agent_class", "config", "policy"),
    [
        pytest.param(Reinforce, ReinforceConfig(**ROLLOUT), LinearisedActor, id="reinforce"),
        pytest.param(
            Reinforce,
            ReinforceConfig(**ROLLOUT, baseline="prompt"),
            LinearisedActor,
            id="reinforce-prompt",
            marks=pytest.mark.slow,
        ),
        pytest.param(RLOO, RLOOConfig(**ROLLOUT, **ONE_STEP), LinearisedActor, id="rloo", marks=pytest.mark.slow),
        pytest.param(DrGRPO, DrGRPOConfig(**ROLLOUT, **ONE_STEP), LinearisedWithReference, id="dr-grpo"),
    ],
)
def test_the_gradient_is_that_of_the_objective(
    world: World, truth: tuple[Tensor, float], agent_class: type[LanguageModelAgent], config: Any, policy: Any
) -> None:
    assert p_value(sampled(world, agent_class, config, policy(world)), *truth) > SIGNIFICANCE


def test_a_baseline_that_holds_the_response_itself_is_caught(
    world: World, truth: tuple[Tensor, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the test above: the group's mean in the place of the others' makes the gradient (k − 1)/k as long."""
    monkeypatch.setattr(rloo, "leave_one_out", partial(group_relative, scale=False))
    gradients = sampled(world, RLOO, RLOOConfig(**ROLLOUT, **ONE_STEP), LinearisedActor(world))
    assert p_value(gradients, *truth) < SIGNIFICANCE
    # And only so: that bias taken out, nothing is left to be seen.
    expected, length = truth
    whole = (GROUP_SIZE - 1) / GROUP_SIZE
    assert p_value(gradients, whole * expected, whole * length) > SIGNIFICANCE


@pytest.mark.parametrize(
    ("agent_class", "config"),
    [
        pytest.param(PPO, PPOConfig(**ROLLOUT, **ONE_STEP, gae_lambda=1.0), id="ppo", marks=pytest.mark.slow),
        pytest.param(A2C, A2CConfig(**ROLLOUT, gae_lambda=1.0), id="a2c", marks=pytest.mark.slow),
    ],
)
def test_whitened_advantages_change_no_more_than_the_gradients_length(
    world: World, truth: tuple[Tensor, float], agent_class: type[LanguageModelAgent], config: Any
) -> None:
    gradients = sampled(world, agent_class, config, LinearisedCritic(world))
    expected, length = truth
    scale = float(gradients.mean(dim=0) @ expected.double() / (expected @ expected))
    assert scale > 0
    assert p_value(gradients, scale * expected, scale * length) > SIGNIFICANCE


@pytest.mark.slow
def test_grpo_as_published_is_caught(world: World, truth: tuple[Tensor, float]) -> None:
    config = GRPOConfig(**ROLLOUT, **ONE_STEP, scale_rewards=False)
    gradients = sampled(world, GRPO, config, LinearisedActor(world))
    expected, length = truth
    scale = float(gradients.mean(dim=0) @ expected.double() / (expected @ expected))
    assert p_value(gradients, scale * expected, scale * length) < SIGNIFICANCE


def test_a_kl_that_counts_for_the_visited_states_alone_is_caught(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_kl_to_come(score: Tensor, kl_cost: Tensor, mask: Tensor, group_size: int) -> Tensor:
        return leave_one_out(score, group_size)[:, None].expand(mask.shape)

    monkeypatch.setattr(dr_grpo, "leave_one_out_with_kl", without_kl_to_come)
    # The bias is that of the KL, so the KL is given weight.
    monkeypatch.setattr(world.env, "beta", 4 * world.env.beta)
    gradients = sampled(world, DrGRPO, DrGRPOConfig(**ROLLOUT, **ONE_STEP), LinearisedWithReference(world))
    expected, _ = objective_gradient(world)
    assert p_value(gradients, expected, float("inf")) < SIGNIFICANCE / 100  # However large the errors, it shows.


# The cosine of the mean step and J's gradient, and its length along it, as the agents' docstrings give them.
SIZES = [
    pytest.param(PPO, PPOConfig(**ROLLOUT, **ONE_STEP), LinearisedCritic, 0.998, 0.277, id="ppo"),
    pytest.param(A2C, A2CConfig(**ROLLOUT), LinearisedCritic, 0.998, 0.277, id="a2c"),
    pytest.param(
        PPOPtx,
        PPOPtxConfig(**ROLLOUT, **ONE_STEP, ptx_batch_size=PROMPTS),
        LinearisedCritic,
        0.986,
        0.215,
        id="ppo-ptx",
    ),
    pytest.param(
        PPOPtx,
        PPOPtxConfig(**ROLLOUT, **ONE_STEP, ptx_batch_size=PROMPTS, ptx_coef=1e-6),
        LinearisedCritic,
        0.998,
        0.277,
        id="ppo-ptx-of-none",
    ),
    pytest.param(GRPO, GRPOConfig(**ROLLOUT, **ONE_STEP), LinearisedActor, 0.915, 0.231, id="grpo"),
    pytest.param(
        GRPO, GRPOConfig(**ROLLOUT, **ONE_STEP, scale_rewards=False), LinearisedActor, 0.935, 0.25, id="grpo-unscaled"
    ),
    pytest.param(
        ExpertIteration,
        ExpertIterationConfig(n_prompts=PROMPTS, **ONE_STEP),
        LinearisedActor,
        0.857,
        0.279,
        id="expert-iteration",
    ),
    pytest.param(OnlineDPO, OnlineDPOConfig(**ROLLOUT, **ONE_STEP), LinearisedActor, 0.999, 0.155, id="online-dpo"),
    pytest.param(
        OnlineDPO,
        OnlineDPOConfig(**ROLLOUT, **ONE_STEP, pair_labels="hard"),
        LinearisedActor,
        0.995,
        0.263,
        id="online-dpo-hard",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("agent_class", "config", "policy", "cosine", "length"), SIZES)
def test_how_far_a_step_is_from_the_gradient_of_the_objective(
    world: World, agent_class: type[LanguageModelAgent], config: Any, policy: Any, cosine: float, length: float
) -> None:
    found = cosine_and_length(world, agent_class, config, policy(world, whole=True))
    assert found[0] == pytest.approx(cosine, abs=0.01)
    assert found[1] == pytest.approx(length, abs=0.02)


@pytest.mark.slow
def test_nlpos_step_is_ppos_among_the_tokens_that_its_mask_leaves() -> None:
    world = World(Sampling(top_p=0.9))
    config = NLPOConfig(**ROLLOUT, **ONE_STEP, mask_every=10**9)
    found = cosine_and_length(world, NLPO, config, LinearisedCritic(world, whole=True))
    assert found[0] == pytest.approx(0.999, abs=0.01)
    assert found[1] == pytest.approx(0.283, abs=0.02)


def cosine_and_length(
    world: World, agent_class: type[LanguageModelAgent], config: Any, policy: Linearised
) -> tuple[float, float]:
    """Of the mean step and J's gradient, and the step's length along it as a share of the gradient's."""
    expected = objective_gradient(world)[1].double().flatten()
    mean = sampled(world, agent_class, config, policy).mean(dim=0).flatten()
    dot = float(mean @ expected)
    return dot / float(mean.norm() * expected.norm()), dot / float(expected.norm()) ** 2
