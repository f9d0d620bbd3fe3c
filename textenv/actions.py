"""The spaces of the environments, and reading actions and responses with clear errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from jaxtyping import Float
from torch import Tensor

from textenv.errors import UsageError
from textenv.responses import Responses
from textenv.stepwise import Rows

KL = Literal["full", "reference"]
"""Which of the two KL terms is paid; with "full" an action tells its log-probability too."""

LOWEST_LOGPROB = -1e4
"""No sampled token is less likely; a finite bound, since Gymnasium warns of infinite ones."""

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
    actions: Any, kl: KL, vocab_size: int, shape: tuple[int, ...], rows: Rows, describe: Callable[[int], str]
) -> tuple[Rows, npt.NDArray[np.float32] | None]:
    """Tokens and log-probabilities of the environments that act.

    Args:
        actions: tokens; with kl="full" a dictionary of "token" and "logprob".
        kl: which of the two is expected.
        vocab_size: V; tokens are 0 to V − 1.
        shape: of the tokens and of the log-probabilities: () for a single environment, (N,) for N.
        rows: which of the environments act; what the others are given is not looked at.
        describe: names an environment to the user.

    Raises:
        UsageError: a wrong type, shape or value; it names the environment.
    """
    where = "" if shape else f"{describe(0)}: "
    if kl == "reference":
        if isinstance(actions, dict):
            raise UsageError(f'{where}with kl="reference" an action is a token alone; for more, make it with kl="full"')
        return _read_tokens(actions, vocab_size, shape, rows, describe), None
    if not isinstance(actions, dict) or set(actions) != {"token", "logprob"}:
        found = sorted(map(str, actions)) if isinstance(actions, dict) else type(actions).__name__
        raise UsageError(f'{where}with kl="full" an action is a dictionary of "token" and "logprob"; it was {found}')
    tokens = _read_tokens(actions["token"], vocab_size, shape, rows, describe)
    # Wide enough that a number of any size can be named in the error.
    logprobs = _read_array(actions["logprob"], "iuf", _LOGPROBS, shape, describe)
    acting = logprobs.reshape(-1)[rows].astype(np.float64)
    impossible = _impossible(acting)
    if impossible.any():
        index = int(impossible.argmax())
        raise UsageError(f"{describe(int(rows[index]))}: {_no_logprob(acting[index])}")
    return tokens, acting.astype(np.float32)


def check_responses(
    responses: Responses, vocab_size: int, response_length: int, describe: Callable[[int], str]
) -> None:
    """Refuses responses that could not have been generated token by token.

    Raises:
        UsageError: a response is empty or beyond the budget, or has a token outside the vocabulary.
    """
    lengths = responses.lengths
    unknown = ((responses.ids < 0) | (responses.ids >= vocab_size)) & responses.mask
    for row in ((lengths < 1) | (lengths > response_length)).nonzero()[:1, 0].tolist():
        raise UsageError(
            f"{describe(row)}: the response has {lengths[row]} tokens; expected are 1 to {response_length}"
        )
    for row, column in unknown.nonzero()[:1].tolist():
        raise UsageError(f"{describe(row)}: {_no_token(responses.ids[row, column], vocab_size)}")


def check_response_logprobs(
    logprobs: Float[Tensor, "B T"], responses: Responses, describe: Callable[[int], str]
) -> None:
    """Refuses what cannot be the log-probabilities of the tokens of whole responses.

    Raises:
        UsageError: another shape, or a value that no token's log-probability has.
    """
    if logprobs.shape != responses.ids.shape:
        raise UsageError(f"logprobs have shape {tuple(logprobs.shape)}; the responses, {tuple(responses.ids.shape)}")
    for row, column in (_impossible(logprobs) & responses.mask).nonzero()[:1].tolist():
        raise UsageError(f"{describe(row)}, token {column}: {_no_logprob(logprobs[row, column].item())}")


# For a single environment, and for several.
_TOKENS = ("the token must be an integer", "the tokens must be an array of {count} integers")
_LOGPROBS = ("the log-probability must be a number", "the log-probabilities must be an array of {count} numbers")


def _read_tokens(
    tokens: Any, vocab_size: int, shape: tuple[int, ...], rows: Rows, describe: Callable[[int], str]
) -> Rows:
    acting = _read_array(tokens, "iu", _TOKENS, shape, describe).reshape(-1)[rows]
    unknown = (acting < 0) | (acting >= vocab_size)
    if unknown.any():
        index = int(unknown.argmax())
        raise UsageError(f"{describe(int(rows[index]))}: {_no_token(acting[index], vocab_size)}")
    return acting.astype(np.int64, copy=False)


def _read_array(
    values: Any, kinds: str, expected: tuple[str, str], shape: tuple[int, ...], describe: Callable[[int], str]
) -> npt.NDArray[Any]:
    """Reads numbers of numpy's `kinds`; `expected` says in words what they must be."""
    try:
        array = np.asarray(values)
        if array.shape == shape and array.dtype.kind in kinds:
            return array
        found = (
            f"it was an array of shape {array.shape} and type {array.dtype}" if array.shape else f"it was {values!r}"
        )
    except Exception as error:  # Which kind depends on the library whose array it is.
        found = f"it cannot be read as an array: {error}"
    must = expected[1].format(count=shape[0]) if shape else f"{describe(0)}: {expected[0]}"
    raise UsageError(f"{must}; {found}")


def _impossible(logprobs: Any) -> Any:
    return ~((logprobs >= LOWEST_LOGPROB) & (logprobs <= _ROUNDING))


def _no_token(token: Any, vocab_size: int) -> str:
    return f"there is no token {int(token)}; the vocabulary has 0 to {vocab_size - 1}"


def _no_logprob(value: Any) -> str:
    return (
        f"the log-probability {value:g} is none; it must be a number from {LOWEST_LOGPROB:g} to 0, the logarithm "
        "of the probability with which the policy chose the token"
    )
