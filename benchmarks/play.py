"""`textenv play`: a run's answers to prompts, from before and after, each token with its reward."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro
from rich.console import Console
from rich.text import Text

from textenv.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from textenv.language_model import LanguageModel
    from textenv.responses import Prompts
    from textenv.tasks.base import Task
    from textenv.vector_env import TextVectorEnv

SHOWN_UNASKED = 3
"""Prompts of the task that are answered where there is no terminal to ask at."""


@dataclasses.dataclass(frozen=True)
class PlayConfig:
    """Which run answers which prompts."""

    run: tyro.conf.Positional[Path]
    """Run folder that `textenv train` made."""
    prompt: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A prompt to answer; may be given several times."""
    count: int = 0
    """How many of the task's test prompts to answer."""
    seed: int = 0
    """Fixes the noise of the answers; both models get the same."""


class Player(NamedTuple):
    """The two models that a run has, and what judges them."""

    task: Task
    reference: LanguageModel
    policy: LanguageModel
    env: TextVectorEnv


class Answer(NamedTuple):
    """One model's answer to one prompt."""

    who: str
    text: str
    tokens: list[str]
    rewards: list[float]
    """Of each token: −β(log π − log π_ref), and the score at the last one."""
    score: float
    """What the run's reward function gives the whole answer."""
    gold: float | None
    """The true score in [0, 1], where it is known."""


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: the folder is not a run that has learned, or a prompt cannot be read.
    """
    config = tyro.cli(PlayConfig, prog="textenv play", description=__doc__, args=list(arguments))
    console = console or Console()
    if config.count < 0 or config.seed < 0:
        raise UsageError(f"--count is {config.count} and --seed {config.seed}; neither can be below 0")

    import numpy as np

    player = load(config.run)
    rng = np.random.default_rng(config.seed)
    asks = not (config.prompt or config.count)
    if asks and sys.stdin.isatty():
        _converse(player, rng, console)
        return 0
    asked = [encode(player, text) for text in config.prompt]
    count = SHOWN_UNASKED if asks else config.count
    for ids in asked + player.task.fixed_prompts("test", count):
        show(player, ids, rng, console)
    return 0


def load(run: Path) -> Player:
    """Loads what a run has: its reference, its reward and its newest agent.

    Raises:
        UsageError: it is not a run folder, or it has not come to reinforcement yet.
    """
    from agents import load_agent
    from agents.rlhf import RLHFConfig, prepare
    from agents.run_folder import read_description
    from reward_models.reward_model import RewardModel
    from textenv.vector_env import TextVectorEnv

    config = RLHFConfig.from_json(read_description(run)["config"])
    checkpoints = sorted((run / "checkpoints").glob("step-*"))
    if not checkpoints:
        raise UsageError(
            f"the run {run} has no checkpoint yet, so there is nothing to play with; "
            f"go on with it first: textenv train --resume {run}"
        )
    setting = prepare(config)
    reward = setting.reward or RewardModel.load(run / "reward_model", setting.reference.tokenizer)
    beta = setting.task.beta if config.beta is None else config.beta
    env = TextVectorEnv(setting.task, reward_function=reward, reference=setting.reference, beta=beta, kl="full")
    agent = load_agent(config.agent).load(checkpoints[-1], env)
    return Player(setting.task, setting.reference, agent.language_model, env)


def encode(player: Player, text: str) -> list[int]:
    """The token ids of a typed prompt.

    Raises:
        UsageError: it is empty, too long, or has words that the model does not know.
    """
    from textenv.tasks.text import encode as encode_text

    tokenizer = player.reference.tokenizer
    ids = encode_text(text, tokenizer)
    if not ids:
        raise UsageError("the prompt is empty; type some words")
    unknown = {tokenizer.unk_token_id, player.reference.pad_id} - {player.reference.eos_id, None}
    strange = [word for word in text.split() if unknown & set(encode_text(word, tokenizer))]
    if strange:
        raise UsageError(
            f"the model does not know {', '.join(map(repr, strange))}; it knows {len(tokenizer)} words, those of the "
            "task's prompts among them (--count 3 shows some)"
        )
    if len(ids) > player.task.prompt_length:
        raise UsageError(f"the prompt has {len(ids)} tokens, more than the {player.task.prompt_length} of the task")
    return ids


def answers(player: Player, prompt: Sequence[int], rng: np.random.Generator) -> Iterator[Answer]:
    """The reference's answer and the policy's, sampled with the same noise."""
    import torch

    from textenv.tasks.base import prompts_of

    prompts: Prompts = prompts_of(player.task, [prompt])
    noise = int(rng.integers(2**63))
    for who, model in (("before", player.reference), ("after", player.policy)):
        generator = torch.Generator().manual_seed(noise)
        sample = model.sample(prompts, max_tokens=player.task.response_length, generator=generator)
        scores = player.env.score(sample.responses, sample.logprobs)
        ids = sample.responses.to_lists()[0]
        yield Answer(
            who,
            model.decode(ids),
            [str(model.tokenizer.decode([token])) for token in ids],
            scores.token_rewards[0, : len(ids)].tolist(),
            float(scores.score[0]),
            None if scores.gold is None else float(scores.gold.score[0]),
        )


def show(player: Player, prompt: Sequence[int], rng: np.random.Generator, console: Console) -> None:
    """Prints a prompt and both answers, tokens coloured from red (negative reward) to green.

    Where there are no colours each token is followed by its reward.
    """
    console.print(Text(_printable(player.reference.decode(prompt)), style="bold"), soft_wrap=True)
    for answer in answers(player, prompt, rng):
        line = Text(f"  {answer.who:<7}")
        largest = max(map(abs, answer.rewards))
        # Tokens of real tokenizers bring their own spaces, those of one token a word do not.
        glue = "" if " " in answer.text and "".join(answer.tokens).startswith(answer.text) else " "
        for token, reward in zip(answer.tokens, answer.rewards, strict=True):
            if console.color_system is None:
                line.append(f"{_printable(token).strip()} ({reward:+.2f}) ")
            else:
                line.append(_printable(token), style=_colour(reward / (largest or 1.0)))
                line.append(glue)
        judged = f"  reward {answer.score:+.2f}"
        if answer.gold is not None:
            judged += f"  gold {answer.gold:.2f}"
        console.print(line.append(judged, style="dim"), soft_wrap=True, highlight=False)


def _converse(player: Player, rng: np.random.Generator, console: Console) -> None:
    """Asks for prompts until the user has enough."""
    console.print("Type a prompt, or press Enter for one of the task's; Ctrl-D ends.", style="dim")
    while True:
        try:
            text = input("> ")
        except EOFError:
            console.print()
            return
        try:
            prompt = encode(player, text) if text.strip() else player.task.sample_prompts("test", 1, rng)[0]
        except UsageError as error:
            console.print(f"{error}", style="red", soft_wrap=True, highlight=False, markup=False)
            continue
        show(player, prompt, rng, console)


def _colour(value: float) -> str:
    """Black on white at 0, on green at 1, on red at −1."""
    faded = round(255 * (1 - 0.75 * abs(value)))
    return f"black on rgb({faded},255,{faded})" if value >= 0 else f"black on rgb(255,{faded},{faded})"


def _printable(text: str) -> str:
    """The text on one line, without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else "⏎" if letter == "\n" else "·" for letter in text)
