"""Scored samples of a task's embedded reference, its constants, and the samples that J* is looked up from."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.special import logsumexp, softmax

from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses
from textenv.tasks.base import prompts_of
from textenv.tasks.embedded import EmbeddedTask
from textenv.world.vocabulary import decode, encode

REFERENCE_PROMPTS = 256
"""Fixed validation prompts whose samples set the utility's unit."""
REFERENCE_SAMPLES = 256
"""Samples of the reference to each of them: enough to tell a good answer's probability of 0.1 on a single prompt."""
BEST_OF = 64
"""The best of so many of them is what best-of-n would reach."""
OPTIMUM_PROMPTS = 128
"""Fixed test prompts for which J* is shipped."""
OPTIMUM_SAMPLES = 512
"""Responses that are shipped for each of them."""
POOL = 8_000
"""Responses that the grammar writes for each of them, from which the shipped ones are drawn."""

Report = Callable[[str, int, int], None]


def write_scored_samples(
    task: EmbeddedTask, reference: LanguageModel, generator: torch.Generator, report: Report
) -> None:
    """Writes the attributes of the reference's samples, and the deviation of their gold score."""
    prompts = prompts_of(task, task.fixed_prompts("validation", REFERENCE_PROMPTS))
    parts = []
    for index in torch.arange(REFERENCE_PROMPTS).split(4):
        sample = reference.sample(
            prompts[index], group_size=REFERENCE_SAMPLES, max_tokens=task.response_length, generator=generator
        )
        parts.append(task.attributes(sample.responses).view(len(index), REFERENCE_SAMPLES, -1))
        report(f"{task.name}: reference samples", int(index[-1]) + 1, REFERENCE_PROMPTS)
    attributes = torch.cat(parts)
    scores = task.gold_score(attributes).double()
    truth = {
        "score_deviation": float(scores.var(dim=1).mean().sqrt()),
        "score_mean": float(scores.mean()),
        "best_of_64_mean": float(scores[:, :BEST_OF].amax(dim=1).mean()),
        "prompts": REFERENCE_PROMPTS,
        "samples_per_prompt": REFERENCE_SAMPLES,
    }
    task.folder.mkdir(exist_ok=True)
    save_file({"attributes": attributes.half()}, task.folder / "reference_samples.safetensors")
    (task.folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def write_optimum_samples(
    task: EmbeddedTask, reference: LanguageModel, rng: np.random.Generator, report: Report
) -> None:
    """Writes responses to the test prompts in about the proportions of the optimal policy, with their weights.

    The reference has learned the grammar, and the grammar's probabilities are known. So the
    proposal is the grammar's own optimum, q ∝ p exp(u/β) at the task's β, and the weights π_ref/q
    are nearly equal. Its normaliser is the mean over a pool of the grammar's responses, from which
    the proposals are drawn in proportion to exp(u/β).
    """
    parts = []
    for index, prompt in enumerate(task.fixed_prompts("test", OPTIMUM_PROMPTS)):
        parts.append(_optimal_responses(task, reference, prompt, rng))
        report(f"{task.name}: optimum samples", index + 1, OPTIMUM_PROMPTS)
    tensors = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    save_file(tensors, task.folder / "optimum.safetensors")


def _optimal_responses(
    task: EmbeddedTask, reference: LanguageModel, prompt: list[int], rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    words = decode(prompt)
    texts = [task.write(rng, words) for _ in range(POOL)]
    attributes = np.array([task.read(words, text.words) for text in texts])
    tilt = attributes @ np.array(task.weights) / sum(task.weights) / task.deviation / task.beta
    log_normaliser = logsumexp(tilt) - np.log(POOL)
    pool_weights = softmax(tilt)
    drawn = rng.choice(POOL, size=OPTIMUM_SAMPLES, p=pool_weights)
    log_q = torch.tensor([texts[i].logprob + tilt[i] - log_normaliser for i in drawn])
    batch = Prompts.from_lists([prompt], reference.pad_id)
    responses = Responses.from_lists(batch, [encode(texts[i].words) for i in drawn], reference.pad_id)
    reference_logprobs = reference.logprobs(responses).double().sum(dim=1)
    return {
        "attributes": torch.tensor(attributes[drawn]).half(),
        "log_weights": (reference_logprobs - log_q).float(),
        "reference_logprobs": reference_logprobs.float(),
        "pool_effective_samples": torch.tensor(1 / np.square(pool_weights).sum()).float(),
    }


def clear(task: EmbeddedTask) -> None:
    """Removes what an earlier build left, so that nothing old is mistaken for new."""
    for file in ("truth.json", "reference_samples.safetensors", "optimum.safetensors"):
        (task.folder / file).unlink(missing_ok=True)
