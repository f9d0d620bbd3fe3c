"""The guards that stop a run whose policy has collapsed, while there is still a good checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agents.finite import require_finite
from agents.seeds import Seeds
from textenv.errors import TextenvError
from textenv.evaluation import HasLanguageModel, HasLogprobs, evaluate
from textenv.responses import Responses
from textenv.tasks.base import prompts_of
from textenv.vector_env import TextVectorEnv

LEAST_ENTROPY = 1e-4
"""Nats a token. Below it nearly every token is certain, so that nothing else is tried or learned any more."""
PROMPTS, SAMPLES = 16, 2
"""Validation prompts and responses to each, by which a policy is judged whose metrics do not tell of it."""


@dataclass(frozen=True)
class Guard:
    """Judges a policy by the entropy and the KL that its agent tells of, or by a few responses of its own."""

    env: TextVectorEnv
    """What the agent learns in."""
    max_kl: float | None
    """Nats an episode that the KL to the reference may come to; None is T·log V, beyond which the reference finds the
    responses less likely than tokens drawn blindly."""
    seed: int
    """Fixes the responses that are sampled, from a generator that nothing else draws from."""

    def check(self, metrics: Mapping[str, float]) -> None:
        """Stops training where a number went bad, or the policy says one thing only or what the reference never would.

        With β = 0 neither of the two is a fault, where no limit is given: the best policy is certain then, and the
        KL costs nothing.

        Args:
            metrics: of an iteration; an agent that does not tell its `entropy` or `kl` is not judged by it.

        Raises:
            TextenvError: names the guard, what it found and what it allows.
        """
        require_finite({name: torch.tensor(value) for name, value in metrics.items()})
        entropy, kl = metrics.get("entropy", math.inf), metrics.get("kl", 0.0)
        allowed, mend = self.max_kl, "lower the learning rate, raise beta"
        if self.env.beta > 0 and entropy < LEAST_ENTROPY:
            raise TextenvError(
                f"the entropy guard stopped training: the policy's entropy is {entropy:.2g} nats a token, and below "
                f"{LEAST_ENTROPY:g} it has collapsed to certain answers; {mend}, or draw from more tokens "
                "(temperature, top_k, top_p)"
            )
        found = f"the KL guard stopped training: the KL to the reference is {kl:.1f} nats an episode, and"
        if allowed is not None and kl > allowed:
            raise TextenvError(f"{found} --max-kl allows {allowed:g}; {mend}, or allow more")
        blind = self.env.task.response_length * math.log(self.env.reference.vocab_size)
        if self.env.beta > 0 and allowed is None and kl > blind:
            raise TextenvError(
                f"{found} beyond {blind:.1f} the reference finds tokens drawn blindly likelier than the policy's; "
                f"{mend}, or learn for fewer tokens"
            )

    def check_policy(self, agent: Any) -> bool:
        """The same by responses that are sampled now.

        Returns:
            Whether anything is known: an agent that does not tell its distribution passes unseen.

        Raises:
            TextenvError: a log-probability is not finite, or the policy has collapsed.
        """
        found = self._sampled(agent)
        if found is not None:
            self.check(found)
        return found is not None

    def finds_sound(self, agent: Any) -> bool:
        """Whether the policy is known to pass."""
        try:
            return self.check_policy(agent)
        except Exception:  # Agents of one's own fail in ways of their own; what stopped the run is still to be said.
            return False

    def _sampled(self, agent: Any) -> dict[str, float] | None:
        """Entropy and KL of a few responses to validation prompts.

        Weights that overflow give NaN without being NaN, and where states overflow only once there are several to
        attend to, that shows in the midst of a response.
        """
        if not isinstance(agent, HasLanguageModel | HasLogprobs):
            return None
        task = self.env.task
        judged = evaluate(
            agent,
            task,
            self.env.reference,
            _NoReward(),
            prompts=prompts_of(task, task.fixed_prompts("validation", PROMPTS)),
            samples_per_prompt=SAMPLES,
            generator=Seeds(self.seed).torch("guard"),
        )
        require_finite({"policy's log-probability": judged.logprobs})
        # A mean of −log π over what was sampled is the entropy, without bias.
        entropy = -judged.logprobs.sum() / judged.responses.mask.sum()
        return {"entropy": float(entropy), "kl": float(judged.kl.mean())}


def tells_all(metrics: Mapping[str, Any]) -> bool:
    """Whether an agent's metrics are enough to judge it by."""
    return {"entropy", "kl"} <= metrics.keys()


class _NoReward:
    """The reward where none is asked about, so that a reward of one's own is not called."""

    name = "none"

    def __call__(self, responses: Responses) -> Tensor:
        return torch.zeros(len(responses))
