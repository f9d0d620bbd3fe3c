"""What every contestant is given: the same model, the same prompts and the same reward."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from agents.outcome import ReferencePolicy
from benchmarks.speed.plan import Shape
from textenv import models, tasks
from textenv.evaluation import evaluate
from textenv.language_model import LanguageModel
from textenv.optimum import KnowsOptimum, estimate_optimum
from textenv.responses import Prompts, Responses
from textenv.rewards import GoldReward
from textenv.tasks.base import RewardFunction, Split, Task, prompts_of

PAD, EOS, FIRST = 0, 1, 2
NEVER = -60.0
"""The logit of what the synthetic model never says: e⁻⁶⁰ as likely as another token."""
LEARNING_RATE = 1e-5
"""Small, so that models stay what they are while they are timed."""
BETA = 0.05
HEAD_WIDTH = 32
JUDGED_PROMPTS, JUDGED_SAMPLES = 64, 8


@dataclass(frozen=True)
class Workload:
    """A task with a model and a reward, at the sizes of a shape."""

    shape: Shape
    task: Task
    language_model: LanguageModel
    reward: RewardFunction

    @classmethod
    def of(cls, shape: Shape) -> Workload:
        """Makes model and task anew; equal shapes give equal ones."""
        if shape.model == "concierge":
            task: Task = tasks.load("concierge")
            return cls(shape, task, models.load("concierge"), GoldReward(task))
        language_model = synthetic_model(shape) if shape.model == "synthetic" else models.load(shape.model)
        return cls(shape, RandomPrompts(shape, language_model), language_model, EvenTokens())

    def prompts(self, count: int, seed: int = 0) -> Prompts:
        """Training prompts."""
        return prompts_of(self.task, self.task.sample_prompts("train", count, np.random.default_rng(seed)))

    def value_model(self) -> PreTrainedModel:
        """A network for the value as TRL and the plain loop have it: the policy's trunk with a head of one number."""
        source = self.language_model.model
        config = copy.deepcopy(source.config)
        config.num_labels = 1
        with torch.random.fork_rng():
            model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
        getattr(model, model.base_model_prefix).load_state_dict(source.base_model.state_dict())
        torch.nn.init.zeros_(model.get_parameter("score.weight"))
        return model


def synthetic_model(shape: Shape) -> LanguageModel:
    """A GPT-2 with random weights which never ends a response, so that lengths are equal for everybody.

    The first number of its final states is always 1, and stands in the embeddings of padding and end of sequence
    for a logit of `NEVER`. So no library has to be told of an exception.
    """
    config = GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.prompt + shape.response,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.width // HEAD_WIDTH,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.ln_f.weight[0], model.transformer.ln_f.bias[0] = 0.0, 1.0
        model.transformer.wte.weight[:, 0] = 0.0
        model.transformer.wte.weight[:FIRST, 0] = NEVER
    return LanguageModel("synthetic", model.eval().requires_grad_(False), _tokenizer(shape.vocab))


def _tokenizer(vocab: int) -> PreTrainedTokenizerBase:
    words = {"<pad>": PAD, "<eos>": EOS} | {f"w{index}": index for index in range(FIRST, vocab)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w2"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )


class RandomPrompts:
    """Prompts of equal length, random in every token; no truth is known.

    Args:
        shape: their length and the budget of a response.
        language_model: who reads them.
    """

    name = "random prompts"
    description = "random tokens, to be timed"
    beta = BETA
    attribute_names: tuple[str, ...] = ()

    def __init__(self, shape: Shape, language_model: LanguageModel) -> None:
        self.prompt_length, self.response_length = shape.prompt, shape.response
        self.reference = language_model.name
        self.tokenizer = language_model.tokenizer
        self._vocab_size = language_model.vocab_size

    def sample_prompts(self, split: Split, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Draws prompts."""
        ids: list[list[int]] = rng.integers(FIRST, self._vocab_size, (count, self.prompt_length)).tolist()
        return ids

    def fixed_prompts(self, split: Split, count: int) -> list[list[int]]:
        """The same prompts at every call."""
        return self.sample_prompts(split, count, np.random.default_rng(0))

    def prompt_text(self, ids: Sequence[int]) -> str:
        """The prompt's words."""
        return " ".join(f"w{index}" for index in ids)

    def encode_prompt(self, text: str) -> list[int]:
        """The token ids of words."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def gold(self, responses: Responses) -> None:
        """Nobody knows."""


class EvenTokens:
    """Pays the fraction of even token ids: costs nothing beside a model's pass."""

    name = "even tokens"

    def __call__(self, responses: Responses) -> Float[Tensor, " B"]:
        """A number in [0, 1] for each response."""
        return ((responses.ids % 2 == 0) & responses.mask).sum(dim=1) / responses.lengths


def optimum_judge(workload: Workload) -> Callable[[PreTrainedModel], float]:
    """Tells the share of the best objective that a model has gained, on fixed test prompts and by the task's own β.

    Args:
        workload: whose task ships what its optimum is looked up from.
    """
    task, reference = workload.task, workload.language_model
    assert isinstance(task, KnowsOptimum)
    samples = task.importance_samples(JUDGED_PROMPTS)
    assert samples is not None
    best = float(estimate_optimum(samples, task.beta).values.mean())
    prompts = prompts_of(task, task.fixed_prompts("test", JUDGED_PROMPTS))

    def objective(language_model: LanguageModel) -> float:
        judged = evaluate(
            ReferencePolicy(language_model),
            task,
            reference,
            workload.reward,
            prompts=prompts,
            samples_per_prompt=JUDGED_SAMPLES,
            generator=torch.Generator().manual_seed(0),
        )
        return float((judged.reward - task.beta * judged.kl).mean())

    start, policy = objective(reference), reference.copy()

    def share(model: PreTrainedModel) -> float:
        policy.model.load_state_dict(model.state_dict())
        return (objective(policy) - start) / (best - start)

    return share
