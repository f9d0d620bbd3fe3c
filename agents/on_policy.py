"""What PPO and A2C share around their algorithms: one rollout, one guarded optimiser step, the agent's state."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agents import checkpoint
from agents.base import Action, Observation, check_range
from agents.functional import gae, masked_mean
from agents.kl_control import kl_control
from agents.policy import ActorCritic
from agents.seeds import Seeds
from textenv.decoding import next_token_logprobs
from textenv.errors import TextenvError, UsageError
from textenv.kl import k1, k3
from textenv.language_model import LanguageModel
from textenv.responses import Responses
from textenv.vector_env import Scores, TextVectorEnv


@dataclass(frozen=True)
class OnPolicyConfig:
    """The settings that every on-policy actor-critic has."""

    n_prompts: int = 16
    """Prompts of an iteration; 64 of them reached less on Concierge in as many tokens."""
    group_size: int = 4
    """Responses sampled to each prompt."""
    learning_rate: float = 5e-4
    """Adam's step size at the start; it falls on a line to 0 at `total_timesteps`."""
    value_learning_rate: float = 5e-3
    """The same for the value head, which begins at nothing."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    gamma: float = 1.0
    """Discount of later rewards; 1 optimises J itself."""
    gae_lambda: float = 0.95
    """GAE's lambda: 0 trusts the values, 1 the returns."""
    vf_coef: float = 0.1
    """Weight of the value loss."""
    max_grad_norm: float = 1.0
    """A gradient longer than this is shortened to it."""
    whiten_rewards: bool = False
    """Scale a rollout's token rewards to variance 1, keeping their mean."""
    separate_value: bool = False
    """Give the value a trunk of its own, at twice the cost of an update."""
    kl_target: float | None = None
    """Nats an episode that beta is steered to; None keeps the environment's beta."""

    def __post_init__(self) -> None:
        for field in ("n_prompts", "group_size"):
            check_range(self, field, 1, integer=True)
        for field in ("learning_rate", "value_learning_rate", "adam_eps", "max_grad_norm"):
            check_range(self, field, 0, low_included=False)
        for field in ("gamma", "gae_lambda"):
            check_range(self, field, 0, 1)
        check_range(self, "vf_coef", 0)
        if self.kl_target is not None:
            check_range(self, "kl_target", 0, low_included=False)


class Rollout(NamedTuple):
    """Responses to fresh prompts, sampled in lockstep, and what the environment pays for them."""

    responses: Responses
    logprobs: Float[Tensor, "B T"]
    """Of the policy, as it sampled."""
    scores: Scores

    @property
    def tokens(self) -> int:
        """Response tokens generated, end-of-sequence tokens included."""
        return int(self.responses.mask.sum())


def collect(
    env: TextVectorEnv, language_model: LanguageModel, n_prompts: int, group_size: int, generator: torch.Generator
) -> Rollout:
    """Samples `group_size` responses to each of `n_prompts` prompts and has them scored all at once.

    Raises:
        TextenvError: a log-probability or a score is not finite.
    """
    sample = language_model.sample(
        env.sample_prompts(n_prompts),
        group_size=group_size,
        max_tokens=env.task.response_length,
        generator=generator,
    )
    require_finite({"policy's log-probability": sample.logprobs})
    scores = env.score(sample.responses, sample.logprobs)
    require_finite({"reward": scores.score, "reference's log-probability": scores.reference_logprobs})
    return Rollout(sample.responses, sample.logprobs, scores)


def rollout_metrics(rollout: Rollout, env: TextVectorEnv) -> dict[str, float]:
    """Means over the episodes of a rollout; the KL is in nats an episode, estimated by k1 and by k3."""
    responses, logprobs, scores = rollout
    kl = float(k1(logprobs, scores.reference_logprobs).masked_fill(~responses.mask, 0.0).sum(dim=1).mean())
    kl_k3 = float(k3(logprobs, scores.reference_logprobs).masked_fill(~responses.mask, 0.0).sum(dim=1).mean())
    reward = float(scores.score.mean())
    metrics = {
        "reward": reward,
        "kl": kl,
        "kl_k3": kl_k3,
        # J is always judged at the task's own beta, whatever beta training uses just now.
        "objective": reward - env.task.beta * kl,
        "beta": env.beta,
        "response_length": float(responses.lengths.float().mean()),
        "eos_rate": float(responses.ended(env.eos_id).float().mean()),
    }
    if scores.gold is not None:
        metrics |= {"gold": float(scores.gold.score.mean()), "utility": float(scores.gold.utility.mean())}
    return metrics


def require_finite(quantities: dict[str, Tensor]) -> None:
    """Stops training before a NaN or an infinity reaches the weights.

    Raises:
        TextenvError: names the first quantity that went bad.
    """
    for name, value in quantities.items():
        if not bool(torch.isfinite(value).all()):
            bad = value[~torch.isfinite(value)].flatten()[0].item()
            raise TextenvError(
                f"the {name} became {bad}, so training stopped before it could spoil the weights; "
                "lower the learning rate, or give a reward that stays finite"
            )


class OnPolicyAgent:
    """An actor-critic that starts as the environment's reference; a subclass adds `learn`.

    Args:
        env: pays for the KL by what the agent says of itself, that is, made with `kl="full"`.
        config: settings.
        seed: seeds the environment's prompts, the sampling and the order of the minibatches.
        data: only offline agents take any.

    Raises:
        UsageError: the environment, the config or the data are not for this agent.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[OnPolicyConfig]]

    def __init__(self, env: TextVectorEnv, config: OnPolicyConfig, seed: int, data: None = None) -> None:
        if not isinstance(config, self.config_class):
            raise UsageError(f"{self.name} takes a {self.config_class.__name__}, got a {type(config).__name__}")
        if data is not None:
            raise UsageError(f"{self.name} learns from the environment alone; leave `data` out")
        if env.kl != "full":
            raise UsageError(
                f"{self.name} says with which log-probability it chose, so it needs an environment made with "
                f"kl='full'; this one has kl={env.kl!r}"
            )
        self.env = env
        self.config = config
        self.seed = seed
        self.num_timesteps = 0
        self.kl_control = kl_control(config.kl_target, env.beta)
        self.policy = ActorCritic(env.reference, separate_value=config.separate_value)
        # The head apart from the trunks: it begins at nothing, so it takes longer steps.
        head = list(self.policy.value_head.parameters())
        trunks = [weight for name, weight in self.policy.named_parameters() if not name.startswith("value_head.")]
        self.optimizer = torch.optim.Adam(
            [
                {"params": trunks, "lr": config.learning_rate},
                {"params": head, "lr": config.value_learning_rate},
            ],
            eps=config.adam_eps,
        )
        self.generators = {name: Seeds(seed).torch(name) for name in ("sampling", "shuffling", "prediction")}
        env.reset(seed=seed)

    @property
    def language_model(self) -> LanguageModel:
        """The policy, as a language model that can be decoded, evaluated and saved."""
        return self.policy.language_model

    def decay_learning_rate(self, total_timesteps: int) -> float:
        """Sets the rates for the coming iteration, on a line from the config's to 0 at the end; returns the trunk's."""
        rates = (self.config.learning_rate, self.config.value_learning_rate)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - self.num_timesteps / total_timesteps)
        return float(self.optimizer.param_groups[0]["lr"])

    def begin_values(self, rewards: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> None:
        """Before the first update, sets the value of every state to the mean reward still to come.

        From 0 the head would need hundreds of steps to get there, and till then GAE would credit the
        whole reward to the tokens near the end.
        """
        if self.num_timesteps == 0:
            returns = gae(rewards, torch.zeros_like(rewards), mask, self.config.gamma, 1.0).returns
            torch.nn.init.constant_(self.policy.value_head.bias, float(masked_mean(returns, mask)))

    def step(self, losses: dict[str, Tensor]) -> float:
        """One optimiser step on the sum of the losses, gradients clipped to `max_grad_norm`.

        Returns:
            The norm that the gradient had before clipping.

        Raises:
            TextenvError: a loss or the gradient is not finite; the weights have not moved.
        """
        require_finite(losses)
        self.optimizer.zero_grad()
        torch.autograd.backward(list(losses.values()))
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
        require_finite({"norm of the gradient": norm})
        self.optimizer.step()
        return float(norm)

    def logprobs(self, observation: Observation) -> Float[Tensor, "N V"]:
        """Log-probabilities of the next token in each row, under the policy that `predict` samples from."""
        ids = torch.as_tensor(np.atleast_2d(observation["input_ids"]), dtype=torch.long)
        mask = torch.as_tensor(np.atleast_2d(observation["attention_mask"])).bool()
        return next_token_logprobs(self.language_model.model, ids, mask)

    def predict(
        self,
        observation: Observation,
        state: None = None,
        episode_start: None = None,
        deterministic: bool = False,
    ) -> tuple[Action, None]:
        """The next token of each row and its log-probability, and no recurrent state.

        Args:
            observation: of one environment, or of N in a batch.
            state: not used; there for stable-baselines3's signature.
            episode_start: not used.
            deterministic: take the likeliest token instead of sampling one.

        Returns:
            `{"token", "logprob"}` with the batch shape of the observation, and None.
        """
        logprobs = self.logprobs(observation)
        if deterministic:
            token = logprobs.argmax(dim=1)
        else:
            token = torch.multinomial(logprobs.exp(), 1, generator=self.generators["prediction"])[:, 0]
        chosen = logprobs.gather(1, token[:, None])[:, 0]
        shape = np.shape(observation["input_ids"])[:-1]
        return {"token": token.numpy().reshape(shape), "logprob": chosen.numpy().reshape(shape)}, None

    def save(self, path: Path) -> None:
        """Writes a folder from which `load` goes on to bit-identical weights."""
        tensors = {
            **checkpoint.module_tensors(self.policy, "policy"),
            **checkpoint.optimizer_tensors(self.optimizer, self.policy, "optimizer"),
            **{f"generator.{name}": generator.get_state() for name, generator in self.generators.items()},
        }
        scalars = {
            "agent": self.name,
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "num_timesteps": self.num_timesteps,
            "beta": self.env.beta,
            "prompts": self.env.np_random.bit_generator.state,
        }
        checkpoint.save(path, checkpoint.Checkpoint(tensors, scalars))

    @classmethod
    def load(cls, path: Path, env: TextVectorEnv) -> Self:
        """The agent saved in a folder, with `env`'s prompts and beta set to where they were.

        Args:
            path: what `save` wrote.
            env: made like the one that the agent was trained in.

        Raises:
            UsageError: the folder is none, holds another agent, or another model.
        """
        tensors, scalars = checkpoint.load(path)
        if scalars.get("agent") != cls.name:
            raise UsageError(f"{path} holds the agent {scalars.get('agent')!r}, expected {cls.name!r}")
        try:
            agent = cls(env, cls.config_class(**scalars["config"]), scalars["seed"])
            checkpoint.restore_module(agent.policy, "policy", tensors)
            checkpoint.restore_optimizer(agent.optimizer, agent.policy, "optimizer", tensors)
            for name, generator in agent.generators.items():
                generator.set_state(tensors[f"generator.{name}"])
            agent.num_timesteps = scalars["num_timesteps"]
            env.beta = scalars["beta"]
            env.np_random.bit_generator.state = scalars["prompts"]
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"{path} was not saved by this version of {cls.name}: {error!r}") from error
        return agent
