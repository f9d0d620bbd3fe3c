"""DPO for language models (Rafailov et al. 2023, arXiv:2305.18290): a policy from comparisons alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import Callback, check_range
from agents.finite import require_finite
from agents.functional.preference_losses import dpo_loss
from agents.language_agent import AgentConfig, LanguageModelAgent
from textenv.actions import check_responses
from textenv.errors import UsageError
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class DPOConfig(AgentConfig):
    """Settings of DPO."""

    batch_size: int = 32
    """Comparisons of an optimiser step; a pass over all of them ends with those that are left."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "batch_size", 1, integer=True)


class DPO(LanguageModelAgent):
    """Direct preference optimisation on the rater's comparisons, without a reward model.

    The policy's implicit reward is β·log(π/π_ref), with the environment's β. A rater who prefers with the
    probability σ(κ·(u₁ − u₂)) leads to π ∝ π_ref·exp(κ·u/β): to the optimum for utility u at β/κ.
    """

    name = "dpo"
    config_class = DPOConfig
    config: DPOConfig
    learns_from = "preferences"

    def __init__(self, env: TextVectorEnv, config: DPOConfig, seed: int, data: Preferences | None = None) -> None:
        super().__init__(env, config, seed, data)
        if not isinstance(data, Preferences) or not len(data):
            found = "none" if isinstance(data, Preferences) else f"a {type(data).__name__}"
            raise UsageError(
                f"dpo learns from comparisons, got {found}; give textenv.preferences.Preferences as `data`"
            )
        if env.beta <= 0:
            raise UsageError("dpo stays near the reference by beta, which is 0; expected is a beta above 0")
        self.pairs = data.paired()
        self.label = data.label.float()
        _check_pairs(self.pairs, env)
        self.reference_logprobs: Tensor | None = None
        self.order = torch.empty(0, dtype=torch.long)
        """What is still to come of the current pass over the comparisons."""

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Goes on up to the first optimiser step that ends at or beyond `total_timesteps` response tokens.

        Args:
            total_timesteps: tokens of both responses of each comparison, again in each pass over them, counted from
                the agent's birth, also after `load`. The learning rate reaches 0 there, so a run that is
                continued must be given the same number.
            callback: called after each step with the agent and its metrics; False stops.

        Raises:
            TextenvError: a loss or a gradient is not finite; the weights before it are kept.
        """
        reference_logprobs = self.reference_logprobs
        if reference_logprobs is None:
            reference_logprobs = self.env.reference.logprobs(self.pairs).sum(dim=1).view(-1, 2)
            require_finite({"reference's log-probability": reference_logprobs})
            self.reference_logprobs = reference_logprobs
        while self.num_timesteps < total_timesteps:
            learning_rate = self.decay_learning_rate(total_timesteps)
            if not len(self.order):
                self.order = torch.randperm(len(self.label), generator=self.generators["shuffling"])
            chosen, self.order = self.order[: self.config.batch_size], self.order[self.config.batch_size :]

            pairs = self.pairs.groups(chosen)
            logprobs = self.policy(pairs).sum(dim=1).view(-1, 2)
            result = dpo_loss(logprobs, reference_logprobs[chosen], self.label[chosen], self.env.beta)
            grad_norm = self.step({"loss": result.loss})

            metrics = {
                "loss": result.loss.item(),
                "accuracy": result.accuracy.item(),
                "reward_margin": result.margin.item(),
                "beta": self.env.beta,
                "grad_norm": grad_norm,
                "learning_rate": learning_rate,
            }
            self.num_timesteps += int(pairs.mask.sum())
            if callback is not None and callback(self, metrics) is False:
                return

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, the comparisons among it."""
        data = {
            "prompt_ids": self.pairs.prompts.ids,
            "prompt_mask": self.pairs.prompts.mask,
            "ids": self.pairs.ids,
            "mask": self.pairs.mask,
            "label": self.label,
        }
        known = {} if self.reference_logprobs is None else {"reference_logprobs": self.reference_logprobs}
        return (
            super().tensors()
            | {f"data.{name}": tensor for name, tensor in data.items()}
            | known
            | {"order": self.order}
        )

    @classmethod
    def data_from(cls, tensors: dict[str, Tensor]) -> Preferences:
        """The comparisons of a checkpoint."""
        prompts = Prompts(tensors["data.prompt_ids"], tensors["data.prompt_mask"])
        ids, mask, label = tensors["data.ids"], tensors["data.mask"], tensors["data.label"]
        unknown = torch.full(label.shape, torch.nan)
        return Preferences(
            Responses(prompts, ids[0::2], mask[0::2]),
            Responses(prompts, ids[1::2], mask[1::2]),
            label,
            rater=["unknown"] * len(label),
            session_time=unknown.double(),
            utility=unknown[:, None].expand(-1, 2),
            probability=unknown,
        )

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was, in the midst of a pass over the comparisons."""
        super().restore(tensors)
        self.reference_logprobs = tensors.get("reference_logprobs")
        self.order = tensors["order"]


def _check_pairs(pairs: Responses, env: TextVectorEnv) -> None:
    """Refuses comparisons that the environment's reference cannot read.

    Raises:
        UsageError: names the comparison and what is wrong with it.
    """
    reference, prompts = env.reference, pairs.prompts
    check_responses(pairs, reference.vocab_size, env.task.response_length, lambda row: f"comparison {row // 2}")
    longest = reference.max_length - env.task.response_length
    unread = (prompts.mask & ((prompts.ids < 0) | (prompts.ids >= reference.vocab_size))).any(dim=1)
    for row in (unread | (prompts.mask.sum(dim=1) > longest)).nonzero()[:1, 0].tolist():
        raise UsageError(
            f"comparison {row}: the reference {reference.name!r} does not read the prompt; expected are at most "
            f"{longest} tokens from 0 to {reference.vocab_size - 1}"
        )
