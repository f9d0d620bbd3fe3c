"""PPO that goes on with pretraining beside (Ouyang et al. 2022, "InstructGPT", arXiv:2203.02155, eq. 2: PPO-ptx)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from agents.base import Callback, check_range
from agents.functional.masked import masked_mean
from agents.language_agent import LanguageModelAgent
from agents.ppo import PPO, PPOConfig
from agents.seeds import Seeds
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.pretraining_texts import PretrainingTexts, TextFile
from textenv.tasks.base import Task
from textenv.vector_env import TextVectorEnv


@dataclass(frozen=True)
class PPOPtxConfig(PPOConfig):
    """Settings of PPO-ptx."""

    ptx_coef: float = 0.5
    """The paper's γ: weight of the cross-entropy on pretraining texts, in nats a token, beside PPO's losses."""
    ptx_batch_size: int = 8
    """Pretraining texts of each optimiser step."""
    ptx_texts: str | None = None
    """File of pretraining texts: text with one a line, JSONL or Parquet with a `text` column, or a saved dataset; None
    is what the task's own reference has learned from."""

    files: ClassVar[tuple[str, ...]] = ("ptx_texts",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "ptx_coef", 0, low_included=False)
        check_range(self, "ptx_batch_size", 1, integer=True)


class PPOPtx(PPO):
    """PPO whose every step follows the gradient of pretraining too, so that less of the language is lost.

    J + γ·E log π(text) is what it climbs, so its policy is not that of the optimum of J. On Exact-v0 the texts are the
    answers that the reference was fitted to, and hold the policy near it as a larger β would. There a step has the
    cosine 0.986 to the gradient of J and 0.21 of its length, without the texts PPO's 0.998 and 0.28
    (`tests/agents/test_gradient_projections.py`).
    """

    name = "ppo-ptx"
    config_class = PPOPtxConfig
    config: PPOPtxConfig

    def __init__(self, env: TextVectorEnv, config: PPOPtxConfig, seed: int, data: None = None) -> None:
        super().__init__(env, config, seed, data)
        self.texts = texts_of(config, env.task, env.reference)
        self.generators["pretraining"] = Seeds(seed).torch("pretraining")
        self.pretraining_losses: list[float] = []

    @staticmethod
    def check_task(config: PPOPtxConfig, task: Task, reference: LanguageModel) -> None:
        """Refuses a file of texts that cannot be used, and a task of which no texts are known.

        Raises:
            UsageError: tells which, and how to mend it.
        """
        LanguageModelAgent.check_task(config, task, reference)
        texts_of(config, task, reference)

    def step(self, losses: dict[str, Tensor]) -> float:
        """PPO's step on its own losses and that of fresh pretraining texts; see `LanguageModelAgent.step`."""
        # Checkpoints keep torch's generators, and texts are drawn by NumPy's.
        seed = int(torch.randint(2**62, (), generator=self.generators["pretraining"]))
        texts = self.texts.pretraining_texts(self.config.ptx_batch_size, np.random.default_rng(seed))
        loss = masked_mean(-self.policy(texts).logprobs, texts.mask)
        self.pretraining_losses.append(loss.item())
        return super().step(losses | {"pretraining loss": self.config.ptx_coef * loss})

    def learn(self, total_timesteps: int, callback: Callback | None = None) -> None:
        """As PPO; the metrics of an iteration have the mean cross-entropy of its pretraining texts beside PPO's."""

        def with_pretraining(agent: PPOPtx, metrics: dict[str, float]) -> bool:
            losses, self.pretraining_losses = self.pretraining_losses, []
            return callback is None or callback(agent, metrics | {"pretraining_loss": sum(losses) / len(losses)})

        super().learn(total_timesteps, with_pretraining)


def texts_of(config: PPOPtxConfig, task: Task, reference: LanguageModel) -> PretrainingTexts:
    """The texts of the config's file or, without one, of the task.

    Raises:
        UsageError: the file cannot be used, or there is none and the task knows no texts.
    """
    if config.ptx_texts is not None:
        return TextFile(Path(config.ptx_texts), reference)
    if isinstance(task, PretrainingTexts):
        return task
    raise UsageError(
        f"no texts are known that {reference.name!r} has learned from: the task {task.name!r} has no method "
        "pretraining_texts; give texts with --ptx-texts FILE, or take the agent ppo, which needs none"
    )
