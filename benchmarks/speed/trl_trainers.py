"""TRL's trainers on the same workload: PPO of 1.12, the last version that has it, and the others of 1.16.

Callbacks of their own mark the iterations, and their reward functions count the tokens.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from datasets import Dataset  # type: ignore[import-untyped]  # The library ships no types.
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import logging

from agents.language_agent import AgentConfig
from benchmarks.speed.ours import OPTIMUM_TOKENS, random_pairs
from benchmarks.speed.worker import Clock, Watched
from benchmarks.speed.workload import BETA, LEARNING_RATE, Workload
from textenv.responses import Prompts, Responses
from textenv.tasks.base import RewardFunction

ENDLESS = 10**8
PROMPTS = 4096
"""Prompts in the data of a trainer, which goes over them again and again."""
OPTIMUM_LEARNING_RATE = AgentConfig.learning_rate
"""That of textenv's agents; TRL's own default, 1e-6, is for models a thousand times as large."""


class Laps(TrainerCallback):
    """Marks iterations of so many of the trainer's steps.

    Args:
        clock: is told of them.
        steps: of one iteration.
        model: what is judged after each.
        tokens: of one iteration, where no reward function counts them.
    """

    def __init__(self, clock: Clock, steps: int, model: PreTrainedModel | None = None, tokens: int = 0) -> None:
        self._clock, self._steps, self._model, self._tokens = clock, steps, model, tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What it took to make the trainer does not count."""
        self._clock.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ends an iteration with its last step."""
        if state.global_step % self._steps == 0:
            self._clock.lap(self._tokens, self._model)


class RewardModel(nn.Module):
    """A reward function in the place where TRL's PPO wants a sequence classifier.

    Args:
        reward: pays whole responses.
        response_length: columns at the end of each row that are the response.
    """

    base_model_prefix = "backbone"

    def __init__(self, reward: RewardFunction, response_length: int) -> None:
        super().__init__()
        self._reward, self._response_length = reward, response_length
        self.score = nn.Identity()

    def backbone(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """The reward at every token, as the last hidden state."""
        start = input_ids.shape[1] - self._response_length
        mask = attention_mask.bool()
        responses = Responses(Prompts(input_ids[:, :start], mask[:, :start]), input_ids[:, start:], mask[:, start:])
        scores = self._reward(responses)
        return SimpleNamespace(hidden_states=[scores[:, None, None].expand(-1, input_ids.shape[1], 1)])


def ppo(workload: Workload, clock: Clock) -> None:
    """PPO in float32."""
    _ppo(workload, clock)


def ppo_bf16(workload: Workload, clock: Clock) -> None:
    """PPO in autocast: not by its flag `bf16`, which TRL's PPO does not pass on, but as `accelerate launch` has it."""
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    _ppo(workload, clock)


def _ppo(workload: Workload, clock: Clock) -> None:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    shape, ends = workload.shape, workload.shape.model != "synthetic"
    prompts = workload.task.sample_prompts("train", PROMPTS, np.random.default_rng(0))
    tokenizer = copy.deepcopy(workload.task.tokenizer)
    tokenizer.padding_side = "left"
    rows = [{"input_ids": ids} for ids in prompts for _ in range(shape.group)]
    with _settings() as settings:
        config = PPOConfig(
            **settings,
            # One micro-batch: with accumulation TRL steps once an epoch, not once a minibatch.
            per_device_train_batch_size=shape.episodes,
            gradient_accumulation_steps=1,
            num_mini_batches=shape.minibatches,
            num_ppo_epochs=shape.epochs,
            local_rollout_forward_batch_size=shape.episodes,
            total_episodes=ENDLESS,
            num_sample_generations=0,
            response_length=shape.response,
            stop_token="eos" if ends else None,
            temperature=1.0,
            kl_coef=workload.task.beta,
            learning_rate=LEARNING_RATE,
        )
        PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=workload.language_model.copy().model,
            ref_model=workload.language_model.model,
            reward_model=RewardModel(Watched(workload.reward, clock), shape.response),
            value_model=workload.value_model(),
            train_dataset=Dataset.from_list(rows),
            callbacks=[Laps(clock, 1)],
        ).train()


def rloo(workload: Workload, clock: Clock) -> None:
    """RLOO."""
    _online("RLOO", workload, clock)


def grpo(workload: Workload, clock: Clock) -> None:
    """GRPO with the loss as published."""
    _online("GRPO", workload, clock)


def rloo_to_optimum(workload: Workload, clock: Clock) -> None:
    """RLOO, judged after each iteration."""
    _online("RLOO", workload, clock, to_optimum=True)


def grpo_to_optimum(workload: Workload, clock: Clock) -> None:
    """GRPO, judged after each iteration."""
    _online("GRPO", workload, clock, to_optimum=True)


def _online(name: str, workload: Workload, clock: Clock, *, to_optimum: bool = False) -> None:
    import trl

    shape, task = workload.shape, workload.task
    prompts = task.sample_prompts("train", PROMPTS, np.random.default_rng(0))
    model = workload.language_model.copy().model
    published = {"loss_type": "grpo", "scale_rewards": "group"} if name == "GRPO" else {}
    # A run to the optimum learns from as many tokens as ours would: about half the budget a response.
    iterations = OPTIMUM_TOKENS // (shape.episodes * shape.response // 2)
    with _settings() as settings:
        _name_folder(workload, model, settings["output_dir"])
        config = getattr(trl, f"{name}Config")(
            **settings,
            **published,
            per_device_train_batch_size=shape.episodes // shape.minibatches,
            gradient_accumulation_steps=1,
            steps_per_generation=shape.minibatches,
            num_iterations=shape.epochs,
            num_generations=shape.group,
            max_completion_length=shape.response,
            max_steps=iterations * shape.steps if to_optimum else ENDLESS,
            temperature=1.0,
            beta=task.beta,
            learning_rate=OPTIMUM_LEARNING_RATE if to_optimum else LEARNING_RATE,
        )
        getattr(trl, f"{name}Trainer")(
            model=model,
            reward_funcs=text_reward(workload, clock),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": _text(workload, ids)} for ids in prompts]),
            processing_class=task.tokenizer,
            callbacks=[Laps(clock, shape.steps, model if to_optimum else None)],
        ).train()


def _name_folder(workload: Workload, model: PreTrainedModel, folder: str) -> None:
    """TRL loads its reference from where the model says that it came from, which a synthetic one cannot say."""
    if workload.shape.model == "synthetic":
        workload.language_model.save(Path(folder))
        model.config._name_or_path = folder


def text_reward(workload: Workload, clock: Clock) -> Callable[..., list[float]]:
    """The reward as a function of texts and token ids, as TRL calls it."""
    reward, tokenizer = Watched(workload.reward, clock), workload.task.tokenizer

    def score(prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        ids = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
        pad_id = workload.language_model.pad_id
        responses = Responses.from_lists(Prompts.from_lists(ids, pad_id), completion_ids, pad_id)
        scores: list[float] = reward(responses).tolist()
        return scores

    return score


def dpo(workload: Workload, clock: Clock) -> None:
    """DPO with the reference's log-probabilities computed once, like ours; TRL appends the end of sequence."""
    from trl import DPOConfig, DPOTrainer

    shape = workload.shape
    pairs = random_pairs(workload)
    rows = [
        {
            "prompt": _text(workload, prompt),
            "chosen": " " + _text(workload, chosen[:-1]),
            "rejected": " " + _text(workload, rejected[:-1]),
        }
        for prompt, chosen, rejected in zip(
            pairs.first.prompts.to_lists(), pairs.first.to_lists(), pairs.second.to_lists(), strict=True
        )
    ]
    with _settings() as settings:
        config = DPOConfig(
            **settings,
            per_device_train_batch_size=shape.prompts // shape.minibatches,
            gradient_accumulation_steps=1,
            precompute_ref_log_probs=True,
            max_steps=ENDLESS,
            learning_rate=LEARNING_RATE,
            beta=BETA,
        )
        DPOTrainer(
            model=workload.language_model.copy().model,
            ref_model=workload.language_model.model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=workload.task.tokenizer,
            callbacks=[Laps(clock, shape.steps, tokens=2 * shape.prompts * shape.response)],
        ).train()


@contextmanager
def _settings() -> Iterator[dict[str, Any]]:
    """The settings of every trainer, with a folder that is there while it runs."""
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory(prefix="textenv-speed-") as folder:
        yield {
            "output_dir": folder,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "report_to": [],
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "seed": 0,
        }


def _text(workload: Workload, ids: Sequence[int]) -> str:
    """A text that the tokenizer reads as just these ids."""
    return " ".join(workload.task.tokenizer.convert_ids_to_tokens(list(ids)))
