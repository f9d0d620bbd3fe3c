"""PPO as a loop in plain PyTorch and transformers: what anybody would write in an afternoon, as a yardstick.

Whole padded sequences go through the model; decoding keeps transformers' own cache; the reference, the old
log-probabilities and the values are computed once a rollout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.speed.worker import Clock, Watched
from benchmarks.speed.workload import LEARNING_RATE, Workload
from textenv.responses import Responses, positions_of


def one_network(workload: Workload, clock: Clock) -> None:
    """The value is a head on the policy's trunk."""
    _learn(workload, clock, two=False)


def two_networks(workload: Workload, clock: Clock) -> None:
    """The value has a network of its own."""
    _learn(workload, clock, two=True)


def _learn(workload: Workload, clock: Clock, *, two: bool) -> None:
    shape, task, reward = workload.shape, workload.task, Watched(workload.reward, clock)
    eos, reference, policy = (
        workload.language_model.eos_id,
        workload.language_model.model,
        workload.language_model.copy().model,
    )
    critic = workload.value_model().base_model if two else None
    head = nn.Linear(policy.config.hidden_size, 1)
    networks = nn.ModuleList([policy, head] if critic is None else [policy, head, critic])
    optimizer = torch.optim.Adam(networks.parameters(), lr=LEARNING_RATE, eps=1e-5)

    def predict(ids: Tensor, mask: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities and values of the last `width` tokens."""
        given = {
            "input_ids": ids,
            "attention_mask": mask.long(),
            "position_ids": positions_of(mask),
            "use_cache": False,
        }
        output = policy(**given, output_hidden_states=critic is None)
        hidden = output.hidden_states[-1] if critic is None else critic(**given).last_hidden_state
        return _chosen(output.logits, ids, width), head(hidden[:, -width - 1 : -1])[..., 0]

    seed = 0
    while True:
        seed += 1
        prompts = workload.prompts(shape.prompts, seed).trimmed().repeat(shape.group)
        with torch.no_grad():
            ids, mask = _sample(policy, prompts.ids, prompts.mask, task.response_length, eos)
            start = prompts.ids.shape[1]
            tokens, real = ids[:, start:], mask[:, start:]
            width = tokens.shape[1]
            old, values = predict(ids, mask, width)
            positions = positions_of(mask)
            base = reference(input_ids=ids, attention_mask=mask.long(), position_ids=positions, use_cache=False)
            rewards = -task.beta * (old - _chosen(base.logits, ids, width)) * real
            rewards[torch.arange(len(ids)), real.sum(dim=1) - 1] += reward(Responses(prompts, tokens, real))
            advantages, future = torch.zeros_like(rewards), torch.zeros(len(ids))
            values = values * real
            for step in reversed(range(width)):
                following = values[:, step + 1] if step + 1 < width else torch.zeros(len(ids))
                future = rewards[:, step] + following - values[:, step] + 0.95 * future
                advantages[:, step] = future
            returns = advantages + values
            advantages = (advantages - advantages[real].mean()) / (advantages[real].std() + 1e-8)
        for _ in range(shape.epochs):
            for rows in torch.randperm(len(ids)).chunk(shape.minibatches):
                logprobs, value = predict(ids[rows], mask[rows], width)
                ratio, gain = (logprobs - old[rows]).exp(), advantages[rows]
                surrogate = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
                clipped = values[rows] + (value - values[rows]).clamp(-0.2, 0.2)
                error = torch.max((value - returns[rows]) ** 2, (clipped - returns[rows]) ** 2)
                loss = (0.05 * error - surrogate)[real[rows]].mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
                optimizer.step()
        clock.lap()


def _chosen(logits: Tensor, ids: Tensor, width: int) -> Tensor:
    """Log-probabilities of the last `width` tokens."""
    logits, ids = logits[:, -width - 1 : -1], ids[:, -width:]
    return -functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")


def _sample(model: Any, ids: Tensor, mask: Tensor, budget: int, eos: int) -> tuple[Tensor, Tensor]:
    """The ids and the mask with responses at their ends."""
    cache, alive, given = None, torch.ones(len(ids), dtype=torch.bool), ids
    for _ in range(budget):
        positions = positions_of(mask)[:, -given.shape[1] :]
        output = model(input_ids=given, attention_mask=mask.long(), position_ids=positions, past_key_values=cache)
        cache = output.past_key_values
        given = torch.multinomial(output.logits[:, -1].softmax(dim=-1), 1)
        ids, mask = torch.cat([ids, given], dim=1), torch.cat([mask, alive[:, None]], dim=1)
        alive = alive & (given[:, 0] != eos)
        if not bool(alive.any()):
            break
    return ids, mask
