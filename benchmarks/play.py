"""`textenv play`: answers to prompts, each token with its reward.

With a run's folder, its reference answers ("before") and its policy ("after"). Without one, --agent
answers the prompts of --task. --step walks through the episodes token by token.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro
from rich.console import Console
from rich.text import Text

from textenv.errors import UsageError, unknown_name
from textenv.rendering import colour, printable

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.walk import Policy, Step, Walker
    from textenv.tasks.base import Task

AGENTS = {"random": "every token is as likely as any other", "reference": "the task's reference model"}
"""Who can answer without a run."""

SHOWN_UNASKED = 3
"""Prompts of the task that a run answers where there is no terminal to ask at."""


@dataclasses.dataclass(frozen=True)
class PlayConfig:
    """Who answers which prompts, and how it is shown."""

    run: tyro.conf.Positional[Path | None] = None
    """Run folder that `textenv train` made."""
    agent: str | None = None
    """Who answers without a run: random or reference."""
    task: str | None = None
    """Task of that agent (see `textenv list`); None is concierge, or text where prompts are given."""
    reward: str | None = None
    """What pays that agent, as for `textenv train`; None is gold."""
    model: str | None = None
    """Reference of that agent: a model's name or folder; None is the task's own."""
    prompts: Path | None = None
    """Prompts of your own for that agent, as for `textenv train`."""
    chat: bool = False
    """Put these into the model's chat template."""
    step: bool = False
    """Walk through each answer token by token; at a terminal Enter goes on and q quits."""
    prompt: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A prompt to answer; may be given several times."""
    count: int = 0
    """How many of the task's test prompts to answer."""
    seed: int = 0
    """Fixes the noise of the answers; before and after get the same."""


class Player(NamedTuple):
    """Who answers the prompts of a task, and the environment in which they do."""

    task: Task
    walker: Walker
    policies: Mapping[str, Policy]


class Answer(NamedTuple):
    """One policy's answer to one prompt."""

    who: str
    steps: list[Step]


class Quit(Exception):
    """Whoever sits at the terminal has had enough."""


def main(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the verb and returns its exit code.

    Raises:
        UsageError: there is nobody to answer, or a prompt cannot be read.
    """
    config = tyro.cli(PlayConfig, prog="textenv play", description=__doc__, args=list(arguments))
    console = console or Console()
    if config.count < 0 or config.seed < 0:
        raise UsageError(f"--count is {config.count} and --seed {config.seed}; neither can be below 0")
    player = load(config)

    import numpy as np

    rng = np.random.default_rng(config.seed)
    asks, at_terminal = not (config.prompt or config.count), sys.stdin.isatty()
    waits = config.step and at_terminal
    try:
        if asks and at_terminal and config.run is not None:
            _converse(player, rng, console, config.step)
            return 0
        if asks and config.run is None:
            prompts = player.task.sample_prompts("test", 1, rng)
        else:
            prompts = player.task.fixed_prompts("test", SHOWN_UNASKED if asks else config.count)
        texts = [*config.prompt, *map(player.task.prompt_text, prompts)]
        # All are read before any is answered, so that a bad one is known at once.
        for text, ids in [(text, player.task.encode_prompt(text)) for text in texts]:
            show(player, text, ids, rng, console, step=config.step, waits=waits)
    except Quit:
        pass
    return 0


def load(config: PlayConfig) -> Player:
    """Loads who answers: what a run has, or an agent that needs none.

    Raises:
        UsageError: a name is not known, the folder is no run or has not come to reinforcement yet, or
            two things do not go together.
    """
    if config.run is not None:
        beside = ("agent", "task", "reward", "model", "prompts", "chat")
        given = [f"--{name}" for name in beside if getattr(config, name) not in (None, False)]
        if given:
            raise UsageError(f"the run {config.run} has all this of its own; leave {', '.join(given)} out")
        return of_run(config.run)
    if config.agent is None:
        raise UsageError(
            "there is nobody to answer; give the folder of a run, or --agent random or --agent reference with a --task"
        )
    if config.agent not in AGENTS:
        from agents import AGENTS as LEARNERS

        hint = " An agent that learns answers with the folder of its run." if config.agent in LEARNERS else ""
        raise UsageError(f"{unknown_name('agent', config.agent, AGENTS)}{hint}")
    return of_agent(config, config.agent)


def of_agent(config: PlayConfig, agent: str) -> Player:
    """The agent called `agent`, on the task that the flags name."""
    from agents.rlhf import RLHFConfig, prepare
    from benchmarks.walk import Walker, of_model, uniform

    setting = prepare(
        RLHFConfig(
            task=config.task,
            reward=config.reward or "gold",
            model=config.model,
            prompts=config.prompts,
            chat=config.chat,
        )
    )
    if setting.reward is None:
        raise UsageError("a learned reward is that of a run; give --reward RUN/reward_model")
    policy = uniform(setting.reference.vocab_size) if agent == "random" else of_model(setting.reference)
    walker = Walker(setting.task, setting.reference, setting.reward, setting.beta)
    return Player(setting.task, walker, {agent: policy})


def of_run(run: Path) -> Player:
    """What a run has: its reference and its newest agent, and the reward it was trained on."""
    from agents import load_agent
    from agents.rlhf import RLHFConfig, prepare
    from agents.run_folder import read_description
    from benchmarks.walk import Walker, of_model
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
    task, reference = setting.task, setting.reference
    reward = setting.reward or RewardModel.load(run / "reward_model", reference.tokenizer)
    env = TextVectorEnv(task, reward_function=reward, reference=reference, beta=setting.beta, kl="full")
    agent = load_agent(config.agent).load(checkpoints[-1], env)
    if not callable(getattr(agent, "logprobs", None)):
        raise UsageError(
            f"the agent {config.agent!r} of the run {run} does not tell how likely its tokens are, so its answers "
            "cannot be shown token by token; report.html has some of them"
        )
    policies: dict[str, Policy] = {
        "before": of_model(reference),
        "after": lambda observation: agent.logprobs(observation)[0],
    }
    return Player(task, Walker(task, reference, reward, setting.beta), policies)


def answers(player: Player, prompt: Sequence[int], rng: np.random.Generator) -> Iterator[Answer]:
    """Everybody's answer, sampled with the same noise."""
    for who, steps in _walks(player, prompt, rng):
        yield Answer(who, list(steps))


def show(
    player: Player,
    text: str,
    prompt: Sequence[int],
    rng: np.random.Generator,
    console: Console,
    *,
    step: bool = False,
    waits: bool = False,
) -> None:
    """Prints a prompt's text and everybody's answer to it.

    Args:
        player: who answers.
        text: the prompt as it was typed.
        prompt: its token ids.
        rng: draws the noise of the answers.
        console: where to print.
        step: whether each token has a line, with its reward, log π and log π_ref; otherwise an answer has one,
            its tokens coloured from red (negative reward) to green or, without colours, followed by their rewards.
        waits: whether the next line waits for Enter.

    Raises:
        Quit: q was typed instead.
    """
    console.print(Text(printable(text), style="bold"), soft_wrap=True)
    if step:
        for who, steps in _walks(player, prompt, rng):
            _show_steps(player, who, steps, console, waits)
    else:
        for answer in answers(player, prompt, rng):
            _show_whole(player, answer, console)


def _walks(player: Player, prompt: Sequence[int], rng: np.random.Generator) -> Iterator[tuple[str, Iterator[Step]]]:
    import numpy as np

    noise = int(rng.integers(2**63))
    for who, policy in player.policies.items():
        yield who, player.walker.walk(prompt, policy, np.random.default_rng(noise))


def _show_whole(player: Player, answer: Answer, console: Console) -> None:
    from textenv.token_texts import shown_tokens

    ids, rewards = [step.token for step in answer.steps], [step.reward for step in answer.steps]
    line = Text(f"  {answer.who:<9} ")
    largest = max(map(abs, rewards)) or 1.0
    for token, text, reward in zip(ids, shown_tokens(player.task.tokenizer, ids), rewards, strict=True):
        if console.color_system is None:
            line.append(f"{_name(player, token, text)} ({reward:+z.2f}) ")
        else:
            red, green, blue = colour(reward / largest)
            line.append(printable(text), style=f"black on rgb({red},{green},{blue})")
    line.append(f"  {_judged(answer.steps[-1])}", style="dim")
    console.print(line, soft_wrap=True, highlight=False)


def _show_steps(player: Player, who: str, steps: Iterator[Step], console: Console, waits: bool) -> None:
    from textenv.token_texts import shown_tokens

    head = f"  {who:<20}    reward     log π  log π_ref"
    console.print(Text(head + ("   (Enter goes on, q quits)" if waits else ""), style="dim"), soft_wrap=True)
    taken: list[Step] = []
    for step in steps:
        taken.append(step)
        ids = [each.token for each in taken]
        name = Text(_name(player, step.token, shown_tokens(player.task.tokenizer, ids)[-1]))
        name.truncate(16, overflow="ellipsis", pad=True)
        line = Text.assemble(f"  {len(taken):>3} ", name, f" {step.reward:+z9.3f} {step.logprob:9.3f} ")
        line.append(f"{step.reference_logprob:10.3f}")
        stops = waits and "end" not in step.info
        console.print(line, soft_wrap=True, highlight=False, end="" if stops else "\n")
        if stops and not _go_on():
            raise Quit
    total = sum(step.reward for step in taken)
    end = f"  end {taken[-1].info['end']}, {_judged(taken[-1])}, sum of rewards {total:+z.2f}"
    console.print(Text(end, style="dim"), soft_wrap=True)
    console.print(Text("  ").append(Text.from_ansi(player.walker.env.render() or "")), soft_wrap=True)


def _judged(last: Step) -> str:
    gold = last.info.get("gold")
    return f"reward {last.info['score']:+z.2f}" + ("" if gold is None else f"  gold {gold:.2f}")


def _name(player: Player, token: int, text: str) -> str:
    """A token by what it adds to the text, or by what the vocabulary calls it where that cannot be seen."""
    from textenv.token_texts import token_name

    return printable(text).strip() or printable(token_name(player.task.tokenizer, token))


def _go_on() -> bool:
    """Waits for Enter; False where q came instead, or nothing can come."""
    try:
        return input().strip().lower() not in ("q", "quit")
    except EOFError:
        return False


def _converse(player: Player, rng: np.random.Generator, console: Console, step: bool) -> None:
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
        show(player, text, ids, rng, console, step=step, waits=step)
