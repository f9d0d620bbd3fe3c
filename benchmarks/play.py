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
from textenv.rendering import colour, separator

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
    task, count = player.task, SHOWN_UNASKED if asks else config.count
    texts = [*config.prompt, *map(task.prompt_text, task.fixed_prompts("test", count))]
    # All are read before any is answered, so that a bad one is known at once.
    for text, ids in [(text, task.encode_prompt(text)) for text in texts]:
        show(player, text, ids, rng, console)
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
            [str(model.tokenizer.decode([token])) for token in ids],
            scores.token_rewards[0, : len(ids)].tolist(),
            float(scores.score[0]),
            None if scores.gold is None else float(scores.gold.score[0]),
        )


def show(player: Player, text: str, prompt: Sequence[int], rng: np.random.Generator, console: Console) -> None:
    """Prints a prompt's text and both answers to it, tokens coloured from red (negative reward) to green.

    Where there are no colours each token is followed by its reward.
    """
    console.print(Text(_printable(text), style="bold"), soft_wrap=True)
    for answer in answers(player, prompt, rng):
        line = Text(f"  {answer.who:<7}")
        largest = max(map(abs, answer.rewards))
        for token, reward in zip(answer.tokens, answer.rewards, strict=True):
            if console.color_system is None:
                line.append(f"{_printable(token).strip()} ({reward:+z.2f}) ")
            else:
                red, green, blue = colour(reward / (largest or 1.0))
                line.append(_printable(token), style=f"black on rgb({red},{green},{blue})")
                line.append(separator(answer.tokens))
        judged = f"  reward {answer.score:+z.2f}"
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
        if not text.strip():
            text = player.task.prompt_text(player.task.sample_prompts("test", 1, rng)[0])
        try:
            ids = player.task.encode_prompt(text)
        except UsageError as error:
            console.print(f"{error}", style="red", soft_wrap=True, highlight=False, markup=False)
            continue
        show(player, text, ids, rng, console)


def _printable(text: str) -> str:
    """The text on one line, without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else "⏎" if letter == "\n" else "·" for letter in text)
