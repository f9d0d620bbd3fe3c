"""Exact values on tasks so small that every response can be listed.

The responses of length at most T over V tokens form a tree: an inner node is a prefix of tokens
other than the end-of-sequence token (EOS), W = V − 1 of them at each step. A causal model gives the
next-token distribution of every prefix in one pass over the Wᵀ⁻¹ longest ones.

Responses are in a fixed order everywhere: those that end after 0, 1, ..., T−1 other tokens, then the
Wᵀ that spend the whole budget, each block in the order of its prefixes. R is their number.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from textenv import decoding
from textenv.errors import UsageError
from textenv.kl import full_kl
from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses
from textenv.tasks.base import RewardFunction, Task, prompts_of

MOST_PREFIXES = 100_000

Tree = list[Float[Tensor, "N prefixes V"]]
"""Log-probabilities of the token after each prefix: entry t holds the Wᵗ prefixes of length t."""


class Objective(NamedTuple):
    """What a policy is worth, averaged over the task's prompts, by enumeration."""

    objective: Float[Tensor, ""]
    """J = E[r] − β·KL(π‖π_ref)."""
    reward: Float[Tensor, ""]
    """E[r]."""
    kl: Float[Tensor, ""]
    """KL(π‖π_ref) of whole responses, in nats an episode."""
    entropy: Float[Tensor, ""]
    """E[Σ_t H(π(·|s_t))], which equals the entropy of whole responses, in nats an episode."""


class Optimum(NamedTuple):
    """The best reachable objective, and the policy that reaches it."""

    value: Objective
    """Its `objective` is J*."""
    logprobs: Float[Tensor, "N R"]
    """log π*(y|x) of every response, π* ∝ π_ref·exp(r/β)."""


class FixedPoint(NamedTuple):
    """Where a stock agent comes to rest."""

    value: Objective
    """What its policy is worth; `objective` is J."""
    tree: Tree
    """log π of the token after every prefix."""
    logprobs: Float[Tensor, "N R"]
    """log π(y|x) of every response."""


def all_prompts(task: Task) -> Prompts:
    """Every prompt of an enumerable task, each once."""
    prompts: list[list[int]] | None = getattr(task, "prompts", None)
    if prompts is None:
        raise UsageError(
            f"the task {task.name!r} does not list all its prompts, so it cannot be enumerated; use 'exact'"
        )
    return prompts_of(task, prompts)


def all_responses(prompts: Prompts, *, vocab_size: int, max_tokens: int, eos_id: int, pad_id: int) -> Responses:
    """Every response to every prompt: N·R rows of T columns, in the module's order."""
    others = _other_tokens(vocab_size, eos_id)
    _check_size(len(others), max_tokens)
    blocks = []
    for length in range(max_tokens + 1):
        block = torch.full((len(others) ** length, max_tokens), pad_id)
        block[:, :length] = _prefixes(others, length)
        if length < max_tokens:
            block[:, length] = eos_id
        blocks.append(block)
    sizes = torch.tensor([min(length + 1, max_tokens) for length in range(max_tokens + 1)])
    lengths = sizes.repeat_interleave(torch.tensor([len(block) for block in blocks]))
    ids = torch.cat(blocks).repeat(len(prompts), 1)
    mask = (torch.arange(max_tokens) < lengths[:, None]).repeat(len(prompts), 1)
    return Responses(prompts, ids, mask)


def next_token_tree(policy: LanguageModel, prompts: Prompts, max_tokens: int) -> Tree:
    """The distribution after every prefix, in one differentiable pass (wrap it in `no_grad` if need be)."""
    others = _other_tokens(policy.vocab_size, policy.eos_id)
    _check_size(len(others), max_tokens)
    longest = _prefixes(others, max_tokens - 1)
    last = torch.full((len(longest), 1), policy.pad_id)
    ids = torch.cat([longest, last], dim=1).repeat(len(prompts), 1)
    responses = Responses(prompts, ids, torch.ones_like(ids, dtype=torch.bool))
    logits = decoding.spread(decoding.drawn_logits(policy.model, responses, policy.sampling).float(), responses.mask)
    logprobs = torch.log_softmax(logits, dim=-1).reshape(len(prompts), len(longest), max_tokens, -1)
    # Prefixes are in lexicographic order, so the first row below each one speaks for all of them.
    return [logprobs[:, :: len(others) ** (max_tokens - 1 - length), length] for length in range(max_tokens)]


def response_logprobs(tree: Tree, eos_id: int) -> Float[Tensor, "N R"]:
    """log π(y|x) of every response, in the module's order."""
    reach = _reach(tree, eos_id)
    ended = [above + level[:, :, eos_id] for above, level in zip(reach[:-1], tree, strict=True)]
    return torch.cat([*ended, reach[-1]], dim=1)


def expected_over_states(tree: Tree, values: list[Float[Tensor, "N prefixes"]], eos_id: int) -> Float[Tensor, " N"]:
    """E[Σ_t f(s_t)] of a policy's tree, for a value f of every prefix."""
    reach = _reach(tree, eos_id)[:-1]
    sums = [(above.exp() * value).sum(dim=1) for above, value in zip(reach, values, strict=True)]
    return torch.stack(sums).sum(dim=0)


def expected_entropy(tree: Tree, eos_id: int) -> Float[Tensor, " N"]:
    """E[Σ_t H(π(·|s_t))] of each prompt, in nats an episode."""
    return expected_over_states(tree, [-(level.exp() * level).sum(dim=-1) for level in tree], eos_id)


def expected_kl(tree: Tree, reference: Tree, eos_id: int) -> Float[Tensor, " N"]:
    """E[Σ_t KL(π(·|s_t)‖π_ref(·|s_t))] of each prompt; equals the KL of whole responses."""
    values = [full_kl(level, other) for level, other in zip(tree, reference, strict=True)]
    return expected_over_states(tree, values, eos_id)


def all_rewards(task: Task, reward_function: RewardFunction, reference: LanguageModel) -> Float[Tensor, "N R"]:
    """The reward of every response."""
    prompts = all_prompts(task)
    responses = all_responses(
        prompts,
        vocab_size=reference.vocab_size,
        max_tokens=task.response_length,
        eos_id=reference.eos_id,
        pad_id=reference.pad_id,
    )
    with torch.no_grad():
        return reward_function(responses).reshape(len(prompts), -1).double()


def all_logprobs(task: Task, policy: LanguageModel) -> Float[Tensor, "N R"]:
    """log π(y|x) of every response to every prompt, without gradient."""
    with torch.no_grad():
        return response_logprobs(_tree(task, policy), policy.eos_id)


def objective_of(
    logprobs: Float[Tensor, "N R"],
    reference_logprobs: Float[Tensor, "N R"],
    rewards: Float[Tensor, "N R"],
    beta: float,
) -> Objective:
    """J and its parts for any distribution over the responses, given by its log-probabilities; differentiable."""
    probs = logprobs.exp()
    # A response of probability 0 adds nothing, even where 0 · ∞ would be NaN.
    finite = logprobs.clamp(min=torch.finfo(logprobs.dtype).min)
    reward = (probs * rewards).sum(dim=1).mean()
    kl = (probs * (finite - reference_logprobs)).sum(dim=1).mean()
    entropy = -(probs * finite).sum(dim=1).mean()
    return Objective(reward - beta * kl, reward, kl, entropy)


def exact_objective(
    task: Task, policy: LanguageModel, reference: LanguageModel, reward_function: RewardFunction, beta: float
) -> Objective:
    """J(π) and its parts of a language model."""
    rewards = all_rewards(task, reward_function, reference)
    return objective_of(all_logprobs(task, policy).double(), all_logprobs(task, reference).double(), rewards, beta)


def exact_optimum(task: Task, reference: LanguageModel, reward_function: RewardFunction, beta: float) -> Optimum:
    """J* = E_x[β log E_{y~π_ref} exp(r/β)] and π*, which reaches it."""
    rewards = all_rewards(task, reward_function, reference)
    reference_logprobs = all_logprobs(task, reference).double()
    logprobs = torch.log_softmax(reference_logprobs + rewards / beta, dim=1)
    return Optimum(objective_of(logprobs, reference_logprobs, rewards, beta), logprobs)


def stock_fixed_point(task: Task, reference: LanguageModel, reward_function: RewardFunction, beta: float) -> FixedPoint:
    """Where the policy gradient of a stock agent vanishes under `kl="reference"`.

    A stock agent adds β times the entropy of the states it visits to its loss (`ent_coef=β`, advantages
    not normalised, γ = 1), but does not count the entropy of the states still to come as a gain of the
    token that leads there. At rest π(a|s) ∝ exp(Q(s,a)/β), with the Q of π itself (O'Donoghue et al. 2017,
    arXiv:1611.01626, section 3), so that V(s) = Σ_a π(a|s)·Q(s,a). J's optimum has V(s) = β log Σ_a exp(Q(s,a)/β)
    instead, which is larger by β·H(π(·|s)): a stock agent thinks too little of long responses.
    """
    rewards = all_rewards(task, reward_function, reference)
    with torch.no_grad():
        reference_tree = [level.double() for level in _tree(task, reference)]
    tree = boltzmann_policy(reference_tree, rewards, beta, reference.eos_id, entropy_to_come=False)
    logprobs = response_logprobs(tree, reference.eos_id)
    reference_logprobs = response_logprobs(reference_tree, reference.eos_id)
    return FixedPoint(objective_of(logprobs, reference_logprobs, rewards, beta), tree, logprobs)


def boltzmann_policy(
    reference: Tree, rewards: Float[Tensor, "N R"], beta: float, eos_id: int, *, entropy_to_come: bool
) -> Tree:
    """The policy π(a|s) ∝ exp(Q(s,a)/β), by backward recursion from the longest prefixes.

    Q(s,a) = β log π_ref(a|s), plus the reward where the token a ends the response, else V(s').

    Args:
        reference: the tree of π_ref.
        rewards: of every response, in the module's order.
        beta: β, above 0.
        eos_id: the token that ends a response.
        entropy_to_come: whether V(s) has β times the entropy at s in it; with it, this is π*.
    """
    others = _other_tokens(reference[0].shape[-1], eos_id)
    *ended, following = rewards.split([len(others) ** length for length in range(len(reference) + 1)], dim=1)
    tree: Tree = []
    for level, end in zip(reversed(reference), reversed(ended), strict=True):
        values = beta * level
        values[:, :, eos_id] += end
        values[:, :, others] += following.unflatten(1, (-1, len(others)))
        logprobs = torch.log_softmax(values / beta, dim=-1)
        following = (logprobs.exp() * (values - beta * logprobs if entropy_to_come else values)).sum(dim=-1)
        tree.insert(0, logprobs)
    return tree


def best_responses(rewards: Float[Tensor, "N R"]) -> Float[Tensor, "N R"]:
    """Log-probabilities of the policy that ignores the KL term: each prompt's best response, always."""
    logprobs = torch.full_like(rewards, -torch.inf)
    return logprobs.scatter(1, rewards.argmax(dim=1, keepdim=True), 0.0)


def total_variation(first: Float[Tensor, "N R"], second: Float[Tensor, "N R"]) -> Float[Tensor, " N"]:
    """½ Σ_y |π(y|x) − π'(y|x)| of each prompt, in [0, 1]."""
    return (first.exp() - second.exp()).abs().sum(dim=1) / 2


def _tree(task: Task, policy: LanguageModel) -> Tree:
    return next_token_tree(policy, all_prompts(task), task.response_length)


def _reach(tree: Tree, eos_id: int) -> list[Float[Tensor, "N prefixes"]]:
    """Log-probability of reaching every prefix, of lengths 0 to T."""
    others = _other_tokens(tree[0].shape[-1], eos_id)
    reach = [torch.zeros_like(tree[0][:, :, 0])]
    for level in tree:
        reach.append((reach[-1][:, :, None] + level[:, :, others]).flatten(1))
    return reach


def _other_tokens(vocab_size: int, eos_id: int) -> Int[Tensor, " W"]:
    tokens = torch.arange(vocab_size)
    return tokens[tokens != eos_id]


def _prefixes(tokens: Int[Tensor, " W"], length: int) -> Int[Tensor, "prefixes length"]:
    """All sequences of a length, in lexicographic order."""
    if length == 0:
        return torch.empty((1, 0), dtype=torch.long)
    return torch.cartesian_prod(*[tokens] * length).reshape(-1, length)


def _check_size(tokens: int, max_tokens: int) -> None:
    if tokens**max_tokens > MOST_PREFIXES:
        raise UsageError(
            f"{tokens}^{max_tokens} responses are too many to enumerate (at most {MOST_PREFIXES:,}); "
            "estimate the optimum by sampling instead"
        )
