"""textenv's own contestants, through its public interface alone, and transformers' `generate`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig

from agents.dpo import DPO, DPOConfig
from agents.grpo import GRPO, GRPOConfig
from agents.language_agent import AgentConfig
from agents.ppo import PPO, PPOConfig
from agents.rloo import RLOO, RLOOConfig
from benchmarks.speed.plan import Shape
from benchmarks.speed.rates import decoding_work
from benchmarks.speed.worker import Clock, Watched
from benchmarks.speed.workload import LEARNING_RATE, Workload
from textenv.language_model import LanguageModel
from textenv.precision import Precision, numerics
from textenv.preferences import Preferences
from textenv.responses import Responses
from textenv.vector_env import TextVectorEnv

ENDLESS = 2**40
"""Timesteps that no contestant reaches: the clock ends it before."""
OPTIMUM_TOKENS = 40_000
"""Response tokens of a run to the optimum, as in `textenv train`; the learning rate reaches 0 there."""


def decode(workload: Workload, clock: Clock) -> None:
    """Samples a response to each prompt, again and again."""
    _decode(workload, clock, workload.language_model, "float32")


def decode_bf16(workload: Workload, clock: Clock) -> None:
    """The same as an agent has it where the processor multiplies in bfloat16, from weights kept in float32."""
    _decode(workload, clock, workload.language_model.copy(), "bfloat16")


def _decode(workload: Workload, clock: Clock, language_model: LanguageModel, precision: Precision) -> None:
    generator = torch.Generator().manual_seed(0)
    prompts = workload.prompts(workload.shape.prompts)
    while True:
        with numerics(precision):
            sample = language_model.sample(
                prompts, max_tokens=workload.task.response_length, group_size=workload.shape.group, generator=generator
            )
        tokens = int(sample.responses.mask.sum())
        clock.lap(tokens, work=partial(decoding_work, language_model.model, sample.responses))


def generate(workload: Workload, clock: Clock) -> None:
    """The same with transformers' `generate` and its default cache."""
    _generate(workload, clock, workload.language_model)


def generate_bf16(workload: Workload, clock: Clock) -> None:
    """The same with all weights, attention and cache in bfloat16."""
    half = workload.language_model.copy()
    half.model.to(torch.bfloat16)  # type: ignore[arg-type]  # transformers' types name the first argument `self`.
    _generate(workload, clock, half)


def _generate(workload: Workload, clock: Clock, language_model: LanguageModel) -> None:
    prompts = workload.prompts(workload.shape.prompts).trimmed().repeat(workload.shape.group)
    settings = GenerationConfig(
        max_new_tokens=workload.task.response_length,
        do_sample=True,
        top_k=0,
        pad_token_id=language_model.pad_id,
        eos_token_id=language_model.eos_id,
    )
    torch.manual_seed(0)
    model: Any = language_model.model
    while True:
        with torch.no_grad():
            ids = model.generate(prompts.ids, attention_mask=prompts.mask.long(), generation_config=settings)
        clock.lap(tokens_until_end(ids[:, prompts.ids.shape[1] :], language_model.eos_id))


def tokens_until_end(ids: Int[Tensor, "B T"], eos_id: int) -> int:
    """Tokens up to the first end of sequence of each row, itself included."""
    ended = (ids == eos_id).int().cumsum(dim=1)
    return int((ended.cumsum(dim=1) <= 1).sum())


def ppo(workload: Workload, clock: Clock) -> None:
    """PPO on one trunk."""
    _learn(PPO, PPOConfig(**_sizes(workload.shape), learning_rate=LEARNING_RATE), workload, clock)


def ppo_two_networks(workload: Workload, clock: Clock) -> None:
    """PPO with a network for the value, as TRL has it."""
    _learn(PPO, PPOConfig(**_sizes(workload.shape), learning_rate=LEARNING_RATE, separate_value=True), workload, clock)


def ppo_bf16(workload: Workload, clock: Clock) -> None:
    """PPO on one trunk, its linear layers in bfloat16."""
    _learn(PPO, PPOConfig(**_sizes(workload.shape, "bfloat16")), workload, clock)


def rloo_bf16(workload: Workload, clock: Clock) -> None:
    """RLOO, its linear layers in bfloat16."""
    _learn(RLOO, RLOOConfig(**_sizes(workload.shape, "bfloat16")), workload, clock)


def grpo_bf16(workload: Workload, clock: Clock) -> None:
    """GRPO, its linear layers in bfloat16."""
    _learn(GRPO, GRPOConfig(**_sizes(workload.shape, "bfloat16")), workload, clock)


def rloo(workload: Workload, clock: Clock) -> None:
    """RLOO."""
    _learn(RLOO, RLOOConfig(**_sizes(workload.shape), learning_rate=LEARNING_RATE), workload, clock)


def grpo(workload: Workload, clock: Clock) -> None:
    """GRPO."""
    _learn(GRPO, GRPOConfig(**_sizes(workload.shape), learning_rate=LEARNING_RATE), workload, clock)


def dpo(workload: Workload, clock: Clock) -> None:
    """DPO on as many random pairs as there are prompts; an iteration is all epochs over them."""
    shape = workload.shape
    pairs = random_pairs(workload)
    config = DPOConfig(learning_rate=LEARNING_RATE, precision="float32", batch_size=shape.prompts // shape.minibatches)
    steps = 0

    def callback(_agent: Any, _metrics: dict[str, float]) -> bool:
        nonlocal steps
        steps += 1
        if steps % shape.steps == 0:
            clock.lap(int(pairs.first.mask.sum() + pairs.second.mask.sum()))
        return True

    DPO(_env(workload, clock), config, 0, pairs).learn(ENDLESS, callback)


def random_pairs(workload: Workload) -> Preferences:
    """Two full responses to each prompt of the iteration, of which the first is preferred."""
    count, length = workload.shape.prompts, workload.shape.response
    prompts = workload.prompts(count)
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones((count, length), dtype=torch.bool)
    first, second = (
        Responses(prompts, torch.randint(2, workload.shape.vocab, (count, length), generator=generator), mask)
        for _ in range(2)
    )
    unknown = torch.full((count,), torch.nan)
    return Preferences(
        first, second, torch.ones(count), ["nobody"] * count, unknown.double(), unknown[:, None].expand(-1, 2), unknown
    )


def ppo_to_optimum(workload: Workload, clock: Clock) -> None:
    """PPO with its default learning rate, judged after each iteration."""
    _learn_to_optimum(PPO, PPOConfig(**_sizes(workload.shape)), workload, clock)


def rloo_to_optimum(workload: Workload, clock: Clock) -> None:
    """RLOO with its default learning rate, judged after each iteration."""
    _learn_to_optimum(RLOO, RLOOConfig(**_sizes(workload.shape)), workload, clock)


def grpo_to_optimum(workload: Workload, clock: Clock) -> None:
    """GRPO with its default learning rate, judged after each iteration."""
    _learn_to_optimum(GRPO, GRPOConfig(**_sizes(workload.shape)), workload, clock)


def _sizes(shape: Shape, precision: Precision = "float32") -> dict[str, Any]:
    return {
        "n_prompts": shape.prompts,
        "group_size": shape.group,
        "n_epochs": shape.epochs,
        "n_minibatches": shape.minibatches,
        "precision": precision,
    }


def _env(workload: Workload, clock: Clock) -> TextVectorEnv:
    return TextVectorEnv(
        workload.task,
        reward_function=Watched(workload.reward, clock),
        reference=workload.language_model,
        kl="full",
        reward="episode",
    )


def _learn(agent: Any, config: AgentConfig, workload: Workload, clock: Clock) -> None:
    def callback(_agent: Any, _metrics: dict[str, float]) -> bool:
        clock.lap()
        return True

    agent(_env(workload, clock), config, 0).learn(ENDLESS, callback)


def _learn_to_optimum(agent: Any, config: AgentConfig, workload: Workload, clock: Clock) -> None:
    def callback(learner: Any, _metrics: dict[str, float]) -> bool:
        clock.lap(model=learner.language_model.model)
        return True

    made = agent(_env(workload, clock), config, 0)
    clock.start()
    made.learn(OPTIMUM_TOKENS, callback)
