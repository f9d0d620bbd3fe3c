"""An agent whose policy is a language model: one guarded optimiser step, what it predicts, its state on disk."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from agents import checkpoint
from agents.base import Action, LearnsFrom, Observation, check_choice, check_range
from agents.exact_kl import ActorWithReference
from agents.finite import require_finite
from agents.functional.schedules import Schedule, learning_rate_factor
from agents.lora import ALL, Lora, check_modules, with_adapters
from agents.policy import Actor, ActorCritic, Computing, trained
from agents.seeds import Seeds
from textenv.architecture import architecture_of
from textenv.decoding import next_token_logprobs
from textenv.errors import UsageError, unknown_name
from textenv.language_model import LanguageModel
from textenv.precision import Precision, native
from textenv.sampling import NEUTRAL, Sampling
from textenv.tasks.base import Task
from textenv.vector_env import TextVectorEnv

PRECISIONS = ("auto", *get_args(Precision))
"""What `AgentConfig.precision` can be."""


@dataclass(frozen=True)
class AgentConfig:
    """The settings that every agent here has."""

    learning_rate: float = 5e-4
    """Adam's step size at its highest."""
    lr_schedule: Schedule = "linear"
    """Down to 0 at `total_timesteps` on a line or half a cosine, or constant."""
    lr_warmup: float = 0.0
    """Share of `total_timesteps` in which the step size first rises from a tenth on a line."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""
    max_grad_norm: float = 1.0
    """A gradient longer than this is shortened to it."""
    precision: Literal["auto", Precision] = "auto"
    """Numbers of the linear layers' products in learning; auto is bfloat16 where the processor multiplies in it. Large
    models draw their tokens in them too."""
    gradient_accumulation: int = 1
    """Parts that the examples of an optimiser step go through the model in, one after another: the step is the same,
    for one more forward pass and less memory."""
    lora_rank: int | None = None
    """Rank of the adapters that are trained in the place of the model's own weights; None trains those."""
    lora_alpha: float = 16.0
    """Adapters weigh lora_alpha / lora_rank."""
    lora_modules: str = ALL
    """Linear layers that get adapters, by name, with commas between them; all-linear is all of them."""

    def __post_init__(self) -> None:
        for field in ("learning_rate", "adam_eps", "max_grad_norm"):
            check_range(self, field, 0, low_included=False)
        check_choice(self, "lr_schedule", Schedule)
        check_range(self, "gradient_accumulation", 1, integer=True)
        if self.lora_rank is not None:
            check_range(self, "lora_rank", 1, integer=True)
        check_range(self, "lora_alpha", 0, low_included=False)
        check_range(self, "lr_warmup", 0, 0.9)
        for field in ("lora_alpha", "lora_modules"):
            if self.lora_rank is None and getattr(self, field) != getattr(type(self), field):
                raise UsageError(
                    f"{type(self).__name__}.{field} is {getattr(self, field)!r}, but lora_rank is None, so that there "
                    f"are no adapters; give a lora_rank, or leave {field} out"
                )
        if self.precision not in PRECISIONS:
            raise UsageError(unknown_name("precision", self.precision, PRECISIONS))

    @property
    def lora(self) -> Lora | None:
        """The adapters that are asked for."""
        return None if self.lora_rank is None else Lora(self.lora_rank, self.lora_alpha, self.lora_modules)

    @property
    def sampling(self) -> Sampling:
        """How the policy's tokens are drawn."""
        return NEUTRAL


class LanguageModelAgent:
    """An agent that starts as the environment's reference; a subclass adds `learn`.

    Args:
        env: pays for the KL by what the agent says of itself, that is, made with `kl="full"`.
        config: settings.
        seed: seeds the environment's prompts, the sampling and the order of the minibatches.
        data: what agents that learn offline learn from; the others take none.

    Raises:
        UsageError: the environment, the config or the data are not for this agent.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[AgentConfig]]
    learns_from: ClassVar[LearnsFrom] = "rewards"

    def __init__(self, env: TextVectorEnv, config: AgentConfig, seed: int, data: Any = None) -> None:
        if not isinstance(config, self.config_class):
            raise UsageError(f"{self.name} takes a {self.config_class.__name__}, got a {type(config).__name__}")
        if data is not None and self.learns_from == "rewards":
            raise UsageError(f"{self.name} learns from the environment alone; leave `data` out")
        if env.kl != "full":
            raise UsageError(
                f"{self.name} says with which log-probability it chose, so it needs an environment made with "
                f"kl='full'; this one has kl={env.kl!r}"
            )
        self.env = env
        # What "auto" comes to here is kept: learning goes on in the same numbers wherever the agent is loaded.
        self.config = dataclasses.replace(config, precision=_precision(config, env.reference))
        self.seed = seed
        self.num_timesteps = 0
        self.generators = {name: Seeds(seed).torch(name) for name in ("sampling", "shuffling", "prediction")}
        self.policy = self.make_policy()
        self.optimizer = torch.optim.Adam(self.parameter_groups(), eps=config.adam_eps, fused=True)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        env.reset(seed=seed)

    @staticmethod
    def check_task(config: Any, task: Task, reference: LanguageModel) -> None:
        """Refuses what would show late or not at all.

        That is adapters for layers that the reference lacks, a precision that it does not have, and more parts of an
        optimiser step than it has examples.

        Raises:
            UsageError: names them, and what there is.
        """
        _precision(config, reference)
        examples = _examples_of_a_step(config)
        if config.gradient_accumulation > examples:
            raise UsageError(
                f"{type(config).__name__}.gradient_accumulation is {config.gradient_accumulation}, expected a whole "
                f"number in [1, {examples:g}], because an optimiser step here has {examples:g} examples"
            )
        if config.lora is not None:
            check_modules(reference, config.lora)

    @property
    def precision(self) -> Precision:
        """The numbers of the matrix products in learning."""
        return _precision(self.config, self.env.reference)

    def make_policy(self) -> Actor | ActorCritic | ActorWithReference:
        """The policy to be trained; an agent with a critic makes another one."""
        return Actor(self.starting_model(), self.computing)

    def starting_model(self) -> LanguageModel:
        """A model to be trained that says what the reference says, but for how the config has its tokens drawn."""
        reference = dataclasses.replace(self.env.reference, sampling=self.config.sampling)
        if self.config.lora is None:
            return reference.copy()
        return with_adapters(reference, self.config.lora, Seeds(self.seed).torch("adapters"))

    @property
    def computing(self) -> Computing:
        """How the policy goes through examples."""
        return Computing(self.precision, self.config.gradient_accumulation)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters with their learning rates at the start, as torch's optimisers take them."""
        return [{"params": trained(self.policy.parameters()), "lr": self.config.learning_rate}]

    @property
    def language_model(self) -> LanguageModel:
        """The policy, as a language model that can be decoded, evaluated and saved."""
        return self.policy.language_model

    def decay_learning_rate(self, total_timesteps: int) -> float:
        """Sets the rates for the coming iteration as the config's schedule has them; returns the trunk's."""
        progress = self.num_timesteps / total_timesteps
        factor = learning_rate_factor(progress, self.config.lr_schedule, self.config.lr_warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        return float(self.optimizer.param_groups[0]["lr"])

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
        return next_token_logprobs(self.language_model.model, ids, mask, self.language_model.sampling)

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
        scalars = {
            "agent": self.name,
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
            "num_timesteps": self.num_timesteps,
            "beta": self.env.beta,
            "prompts": self.env.np_random.bit_generator.state,
        }
        checkpoint.save(path, checkpoint.Checkpoint(self.tensors(), scalars))

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
            agent = cls(env, cls.config_class(**scalars["config"]), scalars["seed"], cls.data_from(tensors))
            agent.restore(tensors)
            agent.num_timesteps = scalars["num_timesteps"]
            env.beta = scalars["beta"]
            env.np_random.bit_generator.state = scalars["prompts"]
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(f"{path} was not saved by this version of {cls.name}: {error!r}") from error
        return agent

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds; an agent with more to keep adds it, here and in the two methods below."""
        return {
            **checkpoint.module_tensors(self.policy, "policy"),
            **checkpoint.optimizer_tensors(self.optimizer, self.policy, "optimizer"),
            **{f"generator.{name}": generator.get_state() for name, generator in self.generators.items()},
        }

    @classmethod
    def data_from(cls, tensors: dict[str, Tensor]) -> Any:
        """The data that the agent of a checkpoint learns from."""
        return None

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Sets a new agent to where the one of a checkpoint was.

        Raises:
            KeyError: the checkpoint lacks something.
        """
        checkpoint.restore_module(self.policy, "policy", tensors)
        checkpoint.restore_optimizer(self.optimizer, self.policy, "optimizer", tensors)
        for name, generator in self.generators.items():
            generator.set_state(tensors[f"generator.{name}"])


def _examples_of_a_step(config: Any) -> float:
    """Comparisons, demonstrations, or prompts with all their responses that an optimiser step learns from, at most."""
    batch_size = getattr(config, "batch_size", None)
    if batch_size is not None:
        return int(batch_size)
    return math.ceil(getattr(config, "n_prompts", math.inf) / getattr(config, "n_minibatches", 1))


def _precision(config: AgentConfig, reference: LanguageModel) -> Precision:
    """What learning computes in; models that only transformers can run would do attention in bfloat16 too."""
    known = architecture_of(reference.model) is not None
    if config.precision == "bfloat16" and not known:
        raise UsageError(
            f"precision is bfloat16, which is for Llama- and GPT-2-type models in float32; {reference.name!r} "
            f"is a {reference.model.config.model_type!r} model in {reference.model.dtype}: use float32 or auto"
        )
    if config.precision == "auto":
        return native() if known else "float32"
    return config.precision
