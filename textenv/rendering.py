"""Texts for people, each token coloured by its reward."""

from __future__ import annotations

from collections.abc import Sequence

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"


def render_episode(prompt: str, tokens: Sequence[str], rewards: Sequence[float], ending: str = "") -> str:
    """One line: the prompt dimmed, then the tokens on red (negative reward) to green (positive).

    Args:
        prompt: text of the prompt.
        tokens: what each response token adds to the text, spaces included.
        rewards: reward of each token; the deepest colour is that of the largest size among them.
        ending: what to write after the tokens, for example how the episode ended.
    """
    largest = max((abs(reward) for reward in rewards), default=0.0) or 1.0
    coloured = [_on(colour(reward / largest), token) for token, reward in zip(tokens, rewards, strict=True)]
    gap = "" if "".join(tokens)[:1].isspace() or not tokens else " "
    end = f" {_DIM}{ending}{_RESET}" if ending else ""
    return f"{_DIM}{printable(prompt)}{_RESET}{gap}{''.join(coloured)}{end}"


def colour(value: float) -> tuple[int, int, int]:
    """Red, green and blue of a background for black letters: white at 0, green at 1, red at −1."""
    faded = round(255 * (1 - 0.75 * min(1.0, abs(value))))
    return (faded, 255, faded) if value >= 0 else (255, faded, faded)


def printable(text: str) -> str:
    """The text on one line, without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else "⏎" if letter == "\n" else "·" for letter in text)


def _on(background: tuple[int, int, int], token: str) -> str:
    return "\x1b[48;2;{};{};{}m\x1b[38;2;0;0;0m{}{}".format(*background, printable(token), _RESET)
