"""The guards that stop a run whose policy has collapsed, while there is still a good checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

from textenv.errors import TextenvError
from textenv.vector_env import TextVectorEnv

LEAST_ENTROPY = 1e-4
"""Nats a token. Below it nearly every token is certain, so that nothing else is tried or learned any more."""


def require_no_collapse(metrics: Mapping[str, float], env: TextVectorEnv) -> None:
    """Stops training where the policy says one thing only, or what the reference would all but never say.

    The KL may be no more than T·log V nats an episode: beyond it the reference finds the responses less likely than
    tokens drawn blindly. With β = 0 neither is a fault: the best policy is certain then, and the KL costs nothing.

    Args:
        metrics: of an iteration; an agent that does not tell its `entropy` or `kl` is not judged by it.
        env: what the agent learns in.

    Raises:
        TextenvError: names the guard, what it found and what it allows.
    """
    if env.beta <= 0:
        return
    most_kl = env.task.response_length * math.log(env.reference.vocab_size)
    entropy, kl = metrics.get("entropy", math.inf), metrics.get("kl", 0.0)
    mend = "lower the learning rate, or raise beta"
    if entropy < LEAST_ENTROPY:
        raise TextenvError(
            f"the entropy guard stopped training: the policy's entropy is {entropy:.2g} nats a token, and below "
            f"{LEAST_ENTROPY:g} it has collapsed to certain answers; {mend}"
        )
    if kl > most_kl:
        raise TextenvError(
            f"the KL guard stopped training: the KL to the reference is {kl:.1f} nats an episode, and beyond "
            f"{most_kl:.1f} the reference finds tokens drawn blindly likelier than the policy's; {mend}"
        )
