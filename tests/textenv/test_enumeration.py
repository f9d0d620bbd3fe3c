"""Exact values by enumeration, against sampling, identities and each other."""

import itertools
import math

import pytest
import torch

from textenv import enumeration, models
from textenv.errors import UsageError
from textenv.responses import Prompts
from textenv.rewards import GoldReward
from textenv.tasks.exact import Exact


@pytest.fixture(scope="module")
def task():
    return Exact()


@pytest.fixture(scope="module")
def reference():
    return models.load("exact")


@pytest.fixture(scope="module")
def policy(reference):
    """The reference with other weights: another distribution over the same tree."""
    policy = reference.copy()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return policy


def test_all_responses_are_listed_once():
    prompts = Prompts.from_lists([[3], [4]], pad_id=0)
    responses = enumeration.all_responses(prompts, vocab_size=3, max_tokens=2, eos_id=1, pad_id=0)
    listed = [[1], [0, 1], [2, 1], [0, 0], [0, 2], [2, 0], [2, 2]]
    assert responses.to_lists() == listed * 2
    assert responses.group_size == 7


def test_logprobs_are_those_of_the_model(task, reference):
    prompts = enumeration.all_prompts(task)
    responses = enumeration.all_responses(prompts, vocab_size=7, max_tokens=5, eos_id=1, pad_id=0)
    logprobs = enumeration.all_logprobs(task, reference)
    assert logprobs.shape == (4, 9331)
    torch.testing.assert_close(
        logprobs.double().exp().sum(dim=1), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-5
    )
    some = torch.arange(0, len(responses), 997)
    for row in some.tolist():
        prompt = row // 9331
        one = type(responses)(prompts[prompt : prompt + 1], responses.ids[[row]], responses.mask[[row]])
        direct = reference.logprobs(one).sum()
        torch.testing.assert_close(logprobs.flatten()[row], direct, rtol=1e-4, atol=1e-4)


def test_sampling_agrees_with_enumeration(task, reference):
    generator = torch.Generator().manual_seed(0)
    sample = reference.sample(enumeration.all_prompts(task), max_tokens=5, generator=generator, group_size=500)
    logprobs = enumeration.all_logprobs(task, reference).double()
    entropy = -(logprobs.exp() * logprobs).sum(dim=1).mean()
    surprise = -sample.logprobs.sum(dim=1).double()
    assert abs(surprise.mean() - entropy) < 4 * surprise.std() / len(surprise) ** 0.5


def test_entropy_and_kl_of_states_are_those_of_whole_responses(task, reference, policy):
    prompts = enumeration.all_prompts(task)
    with torch.no_grad():
        trees = [enumeration.next_token_tree(model, prompts, 5) for model in (policy, reference)]
    logprobs, other = (enumeration.response_logprobs(tree, 1).double() for tree in trees)
    value = enumeration.objective_of(logprobs, other, torch.zeros_like(logprobs), beta=1.0)
    entropy = enumeration.expected_entropy(trees[0], 1).mean().double()
    kl = enumeration.expected_kl(trees[0], trees[1], 1).mean().double()
    torch.testing.assert_close(value.entropy, entropy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value.kl, kl, rtol=1e-4, atol=1e-5)
    assert value.kl > 0.1


def test_the_two_kl_rewards_differ_by_the_entropy(task, reference, policy):
    """E[R_full] = E[R_reference] + β·E[Σ_t H(π(·|s_t))]."""
    beta = 0.7
    rewards = enumeration.all_rewards(task, GoldReward(task), reference)
    logprobs, other = (enumeration.all_logprobs(task, model).double() for model in (policy, reference))
    probs = logprobs.exp()
    full = (probs * (rewards - beta * (logprobs - other))).sum(dim=1).mean()
    of_reference = (probs * (rewards + beta * other)).sum(dim=1).mean()
    with torch.no_grad():
        tree = enumeration.next_token_tree(policy, enumeration.all_prompts(task), 5)
    entropy = enumeration.expected_entropy(tree, 1).mean().double()
    torch.testing.assert_close(full, of_reference + beta * entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        full, enumeration.exact_objective(task, policy, reference, GoldReward(task), beta).objective
    )


def test_the_optimum_is_the_free_energy_and_nothing_beats_it(task, reference, policy):
    reward_function = GoldReward(task)
    rewards = enumeration.all_rewards(task, reward_function, reference)
    other = enumeration.all_logprobs(task, reference).double()
    optimum = enumeration.exact_optimum(task, reference, reward_function, task.beta)
    free_energy = (task.beta * torch.logsumexp(other + rewards / task.beta, dim=1)).mean()
    torch.testing.assert_close(optimum.value.objective, free_energy, rtol=1e-5, atol=1e-5)
    # J* − J(π) = β·KL(π‖π*), for any π.
    value = enumeration.exact_objective(task, policy, reference, reward_function, task.beta)
    logprobs = enumeration.all_logprobs(task, policy).double()
    distance = (logprobs.exp() * (logprobs - optimum.logprobs)).sum(dim=1).mean()
    torch.testing.assert_close(optimum.value.objective - value.objective, task.beta * distance, rtol=1e-4, atol=1e-5)
    assert distance > 0


def test_the_recursion_by_hand():
    """Two tokens, two steps, β = 1, an even reference: rewards ln 3 for "0 end" and nothing for the others."""
    half = torch.tensor(0.5, dtype=torch.float64).log()
    reference = [half.expand(1, 1, 2), half.expand(1, 1, 2)]
    rewards = torch.tensor([[0.0, math.log(3), 0.0]], dtype=torch.float64)
    stock = enumeration.boltzmann_policy(reference, rewards, 1.0, 1, entropy_to_come=False)
    best = enumeration.boltzmann_policy(reference, rewards, 1.0, 1, entropy_to_come=True)
    for tree in (stock, best):
        torch.testing.assert_close(tree[1].exp().flatten(), torch.tensor([0.25, 0.75], dtype=torch.float64))
    # V of "0" is ¾ ln 3 − ln 2, or ln(3/2 + 1/2), against 0 for the end.
    worth = 3**0.75 / 2
    torch.testing.assert_close(float(stock[0][0, 0, 0].exp()), worth / (1 + worth))
    torch.testing.assert_close(float(best[0][0, 0, 0].exp()), 2 / 3)


@pytest.mark.parametrize("beta", [0.2, 0.45, 1.0])
def test_the_recursion_with_the_entropy_to_come_finds_the_optimum(task, reference, beta):
    rewards = enumeration.all_rewards(task, GoldReward(task), reference)
    with torch.no_grad():
        tree = enumeration.next_token_tree(reference, enumeration.all_prompts(task), 5)
    best = enumeration.boltzmann_policy([level.double() for level in tree], rewards, beta, 1, entropy_to_come=True)
    optimum = enumeration.exact_optimum(task, reference, GoldReward(task), beta)
    torch.testing.assert_close(enumeration.response_logprobs(best, 1), optimum.logprobs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("beta", [0.2, 0.45, 1.0])
def test_the_gradient_of_a_stock_agent_vanishes_at_its_fixed_point_only(task, reference, beta):
    """E[R_reference·∇log π(y)] + β·E[Σ_t ∇H(π(·|s_t))], over every response, as A2C and PPO sample it."""
    rewards = enumeration.all_rewards(task, GoldReward(task), reference)
    with torch.no_grad():
        levels = enumeration.next_token_tree(reference, enumeration.all_prompts(task), 5)
    reference_tree = [level.double() for level in levels]
    paid = rewards + beta * enumeration.response_logprobs(reference_tree, 1)

    def gradient(tree):
        """Largest element, where every prefix has logits of its own."""
        logits = [level.detach().clone().requires_grad_() for level in tree]
        policy = [torch.log_softmax(level, dim=-1) for level in logits]
        logprobs = enumeration.response_logprobs(policy, 1)
        entropies = [-(level.exp() * level).sum(dim=-1) for level in policy]
        visits = [level.detach() for level in policy]
        objective = (logprobs.detach().exp() * paid * logprobs).sum()
        objective = objective + beta * enumeration.expected_over_states(visits, entropies, 1).sum()
        return max(float(each.abs().max()) for each in torch.autograd.grad(objective, logits))

    rest = enumeration.stock_fixed_point(task, reference, GoldReward(task), beta)
    best = enumeration.boltzmann_policy(reference_tree, rewards, beta, 1, entropy_to_come=True)
    assert gradient(rest.tree) < 1e-9
    assert gradient(best) > 1e-3
    assert gradient(reference_tree) > 1e-3


def test_a_stock_agent_at_rest_stops_early_and_short_of_the_optimum(task, reference):
    rest = enumeration.stock_fixed_point(task, reference, GoldReward(task), task.beta)
    best = enumeration.exact_optimum(task, reference, GoldReward(task), task.beta)
    assert rest.value.objective < best.value.objective - 0.05
    assert rest.value.entropy < best.value.entropy
    responses = enumeration.all_responses(enumeration.all_prompts(task), vocab_size=7, max_tokens=5, eos_id=1, pad_id=0)
    lengths = responses.lengths.view(4, -1)
    assert (rest.logprobs.exp() * lengths).sum() < (best.logprobs.exp() * lengths).sum()
    torch.testing.assert_close(rest.logprobs.exp().sum(dim=1), torch.ones(4, dtype=torch.float64))


def test_total_variation_by_hand():
    first, second = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    torch.testing.assert_close(enumeration.total_variation(first, second), torch.tensor([0.5]))


def test_best_responses_are_a_point_mass():
    rewards = torch.tensor([[0.0, 2.0, 1.0]], dtype=torch.float64)
    other = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    value = enumeration.objective_of(enumeration.best_responses(rewards), other, rewards, beta=0.5)
    torch.testing.assert_close(value.reward, torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(value.kl, torch.tensor(4.0, dtype=torch.float64).log())
    assert value.entropy == 0


@pytest.mark.slow
def test_gradient_ascent_on_the_exact_objective_learns(task, reference):
    rewards = enumeration.all_rewards(task, GoldReward(task), reference).float()
    other = enumeration.all_logprobs(task, reference)
    prompts = enumeration.all_prompts(task)
    optimum = enumeration.exact_optimum(task, reference, GoldReward(task), task.beta).value.objective
    policy = reference.copy()
    optimiser = torch.optim.Adam(policy.model.parameters(), lr=2e-3)
    values = []
    for _ in range(16):
        logprobs = enumeration.response_logprobs(enumeration.next_token_tree(policy, prompts, 5), 1)
        objective = enumeration.objective_of(logprobs, other, rewards, task.beta).objective
        values.append(float(objective.detach()))
        optimiser.zero_grad()
        (-objective).backward()
        optimiser.step()
    assert (values[-1] - values[0]) / (optimum - values[0]) > 0.1


def test_prefix_order_is_that_of_the_responses(task, reference):
    """Every response's probability is the product along its own path in the tree."""
    prompts = enumeration.all_prompts(task)
    with torch.no_grad():
        tree = enumeration.next_token_tree(reference, prompts, 3)
    logprobs = enumeration.response_logprobs(tree, 1)
    responses = enumeration.all_responses(prompts, vocab_size=7, max_tokens=3, eos_id=1, pad_id=0).to_lists()
    others = [0, 2, 3, 4, 5, 6]
    number = {prefix: index for t in range(3) for index, prefix in enumerate(itertools.product(others, repeat=t))}
    for index in range(0, logprobs.shape[1], 13):
        response = responses[index]
        steps = [tree[t][2, number[tuple(response[:t])], token] for t, token in enumerate(response)]
        torch.testing.assert_close(logprobs[2, index], torch.stack(steps).sum())


def test_too_large_a_tree_is_refused():
    prompts = Prompts.from_lists([[3]], pad_id=0)
    with pytest.raises(UsageError, match="too many to enumerate"):
        enumeration.all_responses(prompts, vocab_size=400, max_tokens=24, eos_id=1, pad_id=0)


def test_a_task_without_a_list_of_prompts_is_refused():
    class Endless:
        name = "endless"

    with pytest.raises(UsageError, match="'endless' does not list all its prompts"):
        enumeration.all_prompts(Endless())
