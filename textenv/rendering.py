"""Texts for the terminal, each token coloured by its reward."""

from __future__ import annotations

from collections.abc import Sequence

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"


def render_episode(prompt: str, tokens: Sequence[str], rewards: Sequence[float], ending: str = "") -> str:
    """One line: the prompt dimmed, then the tokens on red (negative reward) to green (positive).

    Args:
        prompt: text of the prompt.
        tokens: text of each response token.
        rewards: reward of each token; the deepest colour is that of the largest size among them.
        ending: what to write after the tokens, for example how the episode ended.
    """
    largest = max((abs(reward) for reward in rewards), default=0.0) or 1.0
    coloured = [_colour(token, reward / largest) for token, reward in zip(tokens, rewards, strict=True)]
    parts = [f"{_DIM}{prompt}{_RESET}", *coloured]
    if ending:
        parts.append(f"{_DIM}{ending}{_RESET}")
    return " ".join(parts)


def _colour(token: str, value: float) -> str:
    """The token on a 24-bit background: white at 0, green at 1, red at −1."""
    faded = round(255 * (1 - 0.75 * min(1.0, abs(value))))
    red, green = (faded, 255) if value >= 0 else (255, faded)
    return f"\x1b[48;2;{red};{green};{faded}m\x1b[38;2;0;0;0m{token}{_RESET}"
