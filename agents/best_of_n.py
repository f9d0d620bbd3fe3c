"""Best-of-n for language models: of n responses of the reference the best by the reward (arXiv:2009.01325)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from agents import checkpoint
from agents.base import Action, Callback, LearnsFrom, Observation, check_range
from agents.expert_iteration import best_of_groups
from agents.finite import require_finite
from agents.seeds import Seeds
from textenv.decoding import prompts_at_once
from textenv.enumeration import all_logprobs, all_rewards
from textenv.errors import UsageError
from textenv.responses import Prompts, Responses
from textenv.rewards import score_responses
from textenv.tasks.base import Task
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class BestOfNConfig:
    """Settings of best-of-n."""

    n: int = 16
    """Responses sampled for each that is given."""
    n_prompts: int = 16
    """Prompts of an iteration, in which nothing is learned and all is measured."""

    def __post_init__(self) -> None:
        for field in ("n", "n_prompts"):
            check_range(self, field, 1, integer=True)


class Drawn(NamedTuple):
    """Responses that were each the best of n, and how the n fared on average."""

    best: Responses
    """One to each prompt."""
    logprobs: Float[Tensor, "N T"]
    """Of the best ones' tokens, under the reference."""
    rewards: Float[Tensor, "N n"]
    tokens: int
    """Generated, of all n."""


def kl_bound(n: int) -> float:
    """The KL to the reference of the best of n, log n − (n − 1)/n nats, where no two rewards are equal; less otherwise.

    Stiennon et al. 2020, arXiv:2009.01325, appendix G.3; that ties make it a bound: Beirami et al. 2024,
    arXiv:2401.01879.
    """
    return math.log(n) - (n - 1) / n


def best_of_n_logprobs(reference: Float[Tensor, "N R"], scores: Float[Tensor, "N R"], n: int) -> Float[Tensor, "N R"]:
    """Log-probability of each response to be the best of n: log π_ref(y) + log[(F(r)ⁿ − F(<r)ⁿ) / p(r)], r its score.

    Of n scores the highest is r with probability F(r)ⁿ − F(<r)ⁿ, where F(r) is the probability under the reference of
    a score of at most r, F(<r) of a lower one and p(r) of r itself. The first of equals is taken, and n responses are
    as likely in one order as in another, so that those of one score keep the odds that the reference gives them.

    Args:
        reference: log π_ref of all R responses to each of N prompts, in float64; sums to 1.
        scores: what they are ranked by.
        n: responses that are compared.
    """
    rows = []
    for logprobs, ranked in zip(reference, scores, strict=True):
        levels, level = ranked.unique(return_inverse=True)
        mass = logprobs.new_zeros(len(levels)).index_add(0, level, logprobs.exp())
        up_to = mass.cumsum(0)
        # F(r)ⁿ·(1 − (1 − p(r)/F(r))ⁿ), which stays exact where p is small beside F.
        best = n * up_to.log() + (-torch.expm1(n * torch.log1p(-mass / up_to))).log()
        rows.append(logprobs + (best - mass.log())[level])
    return torch.stack(rows)


class BestOfN:
    """Samples n responses from the reference and gives the one with the highest reward; no weight ever moves.

    How likely a token is to be given cannot be told without running through all responses, so there is no
    `logprobs`: evaluation draws by `predict` alone, and tells gold score and reward, but neither KL nor share, unless
    the task can be enumerated: see `response_logprobs`. What `predict` says as a token's log-probability is that of the
    reference, from which it was drawn.
    """

    name: ClassVar[str] = "best-of-n"
    config_class: ClassVar[type[BestOfNConfig]] = BestOfNConfig
    learns_from: ClassVar[LearnsFrom] = "rewards"

    def __init__(self, env: TextVectorEnv, config: BestOfNConfig, seed: int, data: None = None) -> None:
        if not isinstance(config, BestOfNConfig):
            raise UsageError(f"best-of-n takes a BestOfNConfig, got a {type(config).__name__}")
        if data is not None:
            raise UsageError("best-of-n learns from the environment alone; leave `data` out")
        self.env = env
        self.config = config
        self.seed = seed
        self.num_timesteps = 0
        self.generators = {name: Seeds(seed).torch(name) for name in ("sampling", "prediction")}
        self.plans: dict[tuple[int, ...], list[list[tuple[int, float]]]] = {}
        """What is still to be said after each text: tokens with their log-probabilities, as chosen when it began."""
        env.reset(seed=seed)

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """Measures what the best of n are paid, up to the iteration that reaches `total_timesteps` tokens.

        Args:
            total_timesteps: response tokens generated, of all n.
            callback: called after each iteration with the agent and its metrics; False stops.

        Raises:
            TextenvError: a reward is not finite.
        """
        env, task = self.env, self.env.task
        while self.num_timesteps < total_timesteps:
            drawn = self.draw(env.sample_prompts(self.config.n_prompts), 0, self.generators["sampling"])
            metrics = {
                "reward": drawn.rewards.amax(dim=1).mean().item(),
                "reward_reference": drawn.rewards.mean().item(),
                "kl_bound": kl_bound(self.config.n),
                "response_length": drawn.best.lengths.float().mean().item(),
                "eos_rate": drawn.best.ended(env.eos_id).float().mean().item(),
            }
            gold = task.gold(drawn.best)
            if gold is not None:
                metrics |= {"gold": gold.score.mean().item(), "utility": gold.utility.mean().item()}
            self.num_timesteps += drawn.tokens
            if callback is not None and callback(self, metrics) is False:
                return

    def draw(self, texts: Prompts, said: int, generator: torch.Generator) -> Drawn:
        """The best of n ways to go on with each text.

        Args:
            texts: prompts, each followed by as many response tokens as were said.
            said: how many.
            generator: draws the responses.

        Returns:
            Whole responses, with 0 for the log-probabilities of what had been said.

        Raises:
            TextenvError: a reward is not finite.
        """
        env, n = self.env, self.config.n
        prompts = Prompts(texts.ids[:, : texts.ids.shape[1] - said], texts.mask[:, : texts.mask.shape[1] - said])
        before = texts.ids[:, texts.ids.shape[1] - said :].repeat_interleave(n, 0)
        sample = env.reference.sample(
            texts, group_size=n, max_tokens=env.task.response_length - said, generator=generator
        )
        ids = torch.cat([before, sample.responses.ids], dim=1)
        mask = functional.pad(sample.responses.mask, (said, 0), value=True)
        responses = Responses(prompts, ids, mask)
        scores = score_responses(
            env.reward_function,
            responses,
            lambda row: f"prompt {env.task.prompt_text(prompts.to_lists()[row // n])!r}",
        )
        require_finite({"reward": scores})
        best = best_of_groups(scores, n)
        logprobs = functional.pad(sample.logprobs, (said, 0))[best]
        tokens = int(sample.responses.mask.sum())
        return Drawn(responses.one_of_each(best), logprobs, scores.view(-1, n), tokens)

    def predict(
        self,
        observation: Observation,
        state: None = None,
        episode_start: None = None,
        deterministic: bool = False,
    ) -> tuple[Action, None]:
        """The next token of each row, and no recurrent state.

        A response is chosen as a whole where it begins. The agent remembers it for the next call, if that shows
        what it has said so far; a text that it has not begun itself it goes on with in the best of n ways.

        Args:
            observation: of one environment, or of N in a batch.
            state: not used; there for stable-baselines3's signature.
            episode_start: not used.
            deterministic: go on from each text in the best of n ways by itself, drawn with always the same noise.

        Returns:
            `{"token", "logprob"}` with the batch shape of the observation, and None.
        """
        ids = torch.as_tensor(np.atleast_2d(observation["input_ids"]), dtype=torch.long)
        mask = torch.as_tensor(np.atleast_2d(observation["attention_mask"])).bool()
        said = mask[:, self.env.task.prompt_length :].sum(dim=1)
        texts = [(int(count), *row[keep].tolist()) for row, keep, count in zip(ids, mask, said, strict=True)]
        plans: list[list[tuple[int, float]]] = [[] for _ in texts]
        if deterministic:
            for row in range(len(texts)):
                generator = Seeds(self.seed).torch("deterministic")
                plans[row] = self._plans(ids, mask, torch.tensor([row]), int(said[row]), generator)[0]
        else:
            for row, text in enumerate(texts):
                plans[row] = self.plans[text].pop() if self.plans.get(text) else []
            for count in said.unique().tolist():
                new = torch.tensor([row for row in range(len(texts)) if said[row] == count and not plans[row]])
                for rows in new.long().split(self._rows_at_once):
                    drawn = self._plans(ids, mask, rows, count, self.generators["prediction"])
                    for row, plan in zip(rows.tolist(), drawn, strict=True):
                        plans[row] = plan
            self.plans = {}
            for text, (first, *later) in zip(texts, plans, strict=True):
                self.plans.setdefault((text[0] + 1, *text[1:], first[0]), []).append(later)
        shape = np.shape(observation["input_ids"])[:-1]
        tokens, logprobs = zip(*(plan[0] for plan in plans), strict=True)
        return {"token": np.array(tokens).reshape(shape), "logprob": np.array(logprobs).reshape(shape)}, None

    def response_logprobs(self, task: Task) -> Float[Tensor, "N R"]:
        """Log-probability of every response to every prompt, in the order of `textenv.enumeration`.

        Raises:
            UsageError: the task cannot be enumerated.
        """
        env = self.env
        # Normalised anew, since what single precision is off by is raised to the n-th power.
        reference = all_logprobs(task, env.reference).double().log_softmax(dim=1)
        return best_of_n_logprobs(reference, all_rewards(task, env.reward_function, env.reference), self.config.n)

    @property
    def _rows_at_once(self) -> int:
        return prompts_at_once(self.env.reference.model, self.config.n, self.env.task.response_length)

    def _plans(
        self, ids: Int[Tensor, "N L"], mask: Tensor, rows: Int[Tensor, " m"], said: int, generator: torch.Generator
    ) -> list[list[tuple[int, float]]]:
        """Tokens and log-probabilities of the best of n ways to go on in some rows."""
        if not len(rows):
            return []
        end = self.env.task.prompt_length + said
        drawn = self.draw(Prompts(ids[rows, :end], mask[rows, :end]), said, generator)
        return [
            list(zip(line[keep].tolist()[said:], logprobs[keep].tolist()[said:], strict=True))
            for line, keep, logprobs in zip(drawn.best.ids, drawn.best.mask, drawn.logprobs, strict=True)
        ]

    def save(self, path: Path) -> None:
        """Writes a folder from which `load` goes on to the same draws; what was being said is forgotten."""
        self.plans = {}
        scalars = {
            "agent": self.name,
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "num_timesteps": self.num_timesteps,
            "prompts": self.env.np_random.bit_generator.state,
        }
        tensors = {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        checkpoint.save(path, checkpoint.Checkpoint(tensors, scalars))

    @classmethod
    def load(cls, path: Path, env: TextVectorEnv) -> Self:
        """The agent saved in a folder, with `env`'s prompts set to where they were.

        Raises:
            UsageError: the folder is none, or holds another agent.
        """
        tensors, scalars = checkpoint.load(path)
        if scalars.get("agent") != cls.name:
            raise UsageError(f"{path} holds the agent {scalars.get('agent')!r}, expected {cls.name!r}")
        try:
            agent = cls(env, BestOfNConfig(**scalars["config"]), scalars["seed"])
            agent.num_timesteps = scalars["num_timesteps"]
            env.np_random.bit_generator.state = scalars["prompts"]
            for name, generator in agent.generators.items():
                generator.set_state(tensors[f"generator.{name}"])
        except (KeyError, TypeError) as error:
            raise UsageError(f"{path} was not saved by this version of {cls.name}: {error!r}") from error
        return agent
