"""The spaces of the environments, and reading actions with clear errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from textenv.episodes import KL, LOWEST_LOGPROB
from textenv.errors import UsageError
from textenv.stepwise import Rows

_ROUNDING = 1e-4
"""How far above 0 rounding may lift a log-probability that is meant to be 0."""


def observation_space(columns: int, vocab_size: int) -> spaces.Dict:
    """Token ids and mask of prompt and response together, named as transformers names them."""
    return spaces.Dict(
        {
            "attention_mask": spaces.Box(0, 1, (columns,), np.int8),
            "input_ids": spaces.Box(0, vocab_size - 1, (columns,), np.int64),
        }
    )


def action_space(vocab_size: int, kl: KL) -> spaces.Discrete | spaces.Dict:
    """The next token; with kl="full" together with its log-probability under the policy."""
    token = spaces.Discrete(vocab_size)
    if kl == "reference":
        return token
    return spaces.Dict({"logprob": spaces.Box(LOWEST_LOGPROB, 0.0, (), np.float32), "token": token})


def read_actions(
    actions: Any, kl: KL, vocab_size: int, count: int, rows: Rows
) -> tuple[Rows, npt.NDArray[np.float32] | None]:
    """Tokens and log-probabilities of the environments that act.

    Args:
        actions: an array of `count` tokens; with kl="full" a dictionary of the arrays "token" and "logprob".
        kl: which of the two is expected.
        vocab_size: V; tokens are 0 to V − 1.
        count: the number of environments.
        rows: which of them act; what the others are given is not looked at.

    Raises:
        UsageError: a wrong type, shape or value; it names the environment.
    """
    if kl == "reference":
        if isinstance(actions, dict):
            raise UsageError('with kl="reference" an action is a token alone; make the environment with kl="full"')
        return _read_tokens(actions, vocab_size, count, rows), None
    if not isinstance(actions, dict) or set(actions) != {"token", "logprob"}:
        found = sorted(map(str, actions)) if isinstance(actions, dict) else type(actions).__name__
        raise UsageError(f'with kl="full" an action is a dictionary of "token" and "logprob"; it was {found}')
    tokens = _read_tokens(actions["token"], vocab_size, count, rows)
    logprobs = np.asarray(actions["logprob"])
    if logprobs.shape != (count,) or not np.issubdtype(logprobs.dtype, np.number):
        raise UsageError(f"log-probabilities must be {count} numbers; they have {_described(logprobs)}")
    acting = logprobs[rows].astype(np.float32)
    bad = ~((acting >= LOWEST_LOGPROB) & (acting <= _ROUNDING))
    if bad.any():
        index = int(bad.argmax())
        raise UsageError(
            f"environment {rows[index]}: the log-probability {acting[index]} is none; it must be a number from "
            f"{LOWEST_LOGPROB:g} to 0, the logarithm of the probability with which the policy chose the token"
        )
    return tokens, acting


def _read_tokens(tokens: Any, vocab_size: int, count: int, rows: Rows) -> Rows:
    array = np.asarray(tokens)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"tokens must be {count} integers; they have {_described(array)}")
    acting = array[rows].astype(np.int64)
    bad = (acting < 0) | (acting >= vocab_size)
    if bad.any():
        index = int(bad.argmax())
        raise UsageError(
            f"environment {rows[index]}: there is no token {acting[index]}; the vocabulary has 0 to {vocab_size - 1}"
        )
    return acting


def _described(array: npt.NDArray[Any]) -> str:
    return f"shape {array.shape} and type {array.dtype}"
