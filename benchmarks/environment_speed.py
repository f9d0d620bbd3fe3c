"""How fast the environment is by itself: `python -m benchmarks.environment_speed`.

Two questions, each on one thread and with `reward="episode"`; what is measured is the time that this
thread has the processor, so that other programs do not count:

- How many token steps a second does it make alone? Tokens are random, no episode ends while the clock
  runs, and so nothing is scored.
- How long does it take beside an agent that decodes with a cache and samples from the reference? Here
  episodes end and begin anew. What others compute when they do (the reference's log-probabilities,
  reward and gold score, the task's prompts) has clocks of its own, and the environment's time is
  the rest of what its steps take.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode
from jaxtyping import Float
from torch import Tensor

from textenv import models, tasks
from textenv.language_model import LanguageModel
from textenv.responses import Responses
from textenv.stepwise import StepwiseLogprobs
from textenv.vector_env import TextVectorEnv


@dataclasses.dataclass(frozen=True)
class SpeedConfig:
    """What is measured."""

    task: str = "concierge"
    """Whose prompts, budget and reference are taken."""
    envs_alone: int = 1024
    """How many environments step alone."""
    envs_decoding: int = 128
    """How many environments the decoding agent steps."""
    decoded: int = 48
    """Tokens that the agent decodes in each environment, in each repetition."""
    repeats: int = 7
    """Repetitions, of which the median is told."""
    seed: int = 0
    """Seeds prompts and tokens."""


class Times(NamedTuple):
    """Seconds that a rollout of a decoding agent took, by who used them."""

    decoding: float
    """The agent's passes through its model, and its sampling."""
    scoring: float
    """The reference's log-probabilities, the reward function and the gold score."""
    prompts: float
    """The task's drawing of prompts."""
    environment: float
    """The rest of the environment's steps: observations and bookkeeping."""


class Stopwatch:
    """Adds up the seconds of processor time that calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function with its calls on the clock."""

        def call(*arguments: Any, **named: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - start

        return call


class TimedModel(LanguageModel):
    """A language model whose `logprobs` is on a clock."""

    def __init__(self, language_model: LanguageModel, watch: Stopwatch) -> None:
        super().__init__(language_model.name, language_model.model, language_model.tokenizer)
        object.__setattr__(self, "logprobs", watch.timed(language_model.logprobs))


class Nothing:
    """A reward of 0 for everything."""

    name = "nothing"

    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """Zeros."""
        return torch.zeros(len(responses))


def steps_a_second(config: SpeedConfig) -> float:
    """Token steps a second of the environment alone, in the median repetition.

    A repetition is T − 1 steps of every environment, so that no response is full; the
    end-of-sequence token is not drawn.
    """
    env = TextVectorEnv(config.task, num_envs=config.envs_alone, reward_function=Nothing(), reward="episode")
    tokens = np.setdiff1d(np.arange(env.reference.vocab_size), [env.eos_id])
    rng = np.random.default_rng(config.seed)
    rates = []
    for repeat in range(config.repeats):
        actions = rng.choice(tokens, size=(env.task.response_length - 1, config.envs_alone))
        env.reset(seed=config.seed + repeat)
        start = time.thread_time()
        for action in actions:
            env.step(action)
        rates.append(actions.size / (time.thread_time() - start))
    return statistics.median(rates)


def rollout_times(config: SpeedConfig) -> Times:
    """What a rollout of a decoding agent takes, in the repetition with the median share of the environment."""
    reference = models.load(tasks.load(config.task).reference)
    generator = torch.Generator().manual_seed(config.seed)
    every = [_rollout(config, reference, generator) for _ in range(config.repeats)]
    return sorted(every, key=lambda times: times.environment / times.decoding)[len(every) // 2]


def _rollout(config: SpeedConfig, reference: LanguageModel, generator: torch.Generator) -> Times:
    scoring, drawing, stepping, decoding = (Stopwatch() for _ in range(4))
    task = tasks.load(config.task)
    vars(task).update(gold=scoring.timed(task.gold), sample_prompts=drawing.timed(task.sample_prompts))
    count = config.envs_decoding
    env = TextVectorEnv(
        task,
        num_envs=count,
        reward_function=Nothing(),
        reference=TimedModel(reference, scoring),
        reward="episode",
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    decoder = StepwiseLogprobs(reference.model, count, task.prompt_length)
    rows = np.arange(count)

    def act(observation: dict[str, Any]) -> Any:
        ids, mask = (torch.from_numpy(observation[name]) for name in ("input_ids", "attention_mask"))
        steps = mask[:, task.prompt_length :].sum(dim=1).numpy()
        logprobs = decoder(rows, ids, mask.bool(), steps)
        return torch.multinomial(logprobs.exp(), 1, generator=generator)[:, 0].numpy()

    act, step = decoding.timed(act), stepping.timed(env.step)
    observation, _ = env.reset(seed=config.seed)
    drawing.seconds = 0.0
    for _ in range(config.decoded):
        observation = step(act(observation))[0]
    rest = stepping.seconds - scoring.seconds - drawing.seconds
    return Times(decoding.seconds, scoring.seconds, drawing.seconds, rest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and returns the exit code."""
    config = tyro.cli(SpeedConfig, prog="python -m benchmarks.environment_speed", args=arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rate, times = steps_a_second(config), rollout_times(config)
    finally:
        torch.set_num_threads(threads)
    print(
        f'the environment alone: {config.envs_alone} environments of {config.task!r}, reward="episode", random tokens, '
        f"one thread;\nno episode ends while the clock runs, so nothing is scored; median of {config.repeats}\n"
        f"  {rate / 1e6:.2f} million token steps a second\n\n"
        f"beside a decoding agent: {config.envs_decoding} environments, {config.decoded} tokens each sampled from "
        f"the reference with a cache,\none thread, same-step autoreset; median of {config.repeats}\n"
        f"  decoding              {times.decoding:8.3f} s\n"
        f"  reference and scores  {times.scoring:8.3f} s\n"
        f"  drawing prompts       {times.prompts:8.3f} s\n"
        f"  environment           {times.environment:8.3f} s: {times.environment / times.decoding:.2%} of decoding, "
        f"{(times.environment + times.prompts) / times.decoding:.2%} with the drawing of prompts"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
