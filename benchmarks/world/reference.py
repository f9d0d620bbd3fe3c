"""Scored samples of the embedded reference, its constants, and the samples that J* is looked up from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from agents.ppo import PPO, PPOConfig
from textenv.evaluation import HasLanguageModel, evaluate, logprobs_under
from textenv.language_model import LanguageModel
from textenv.optimum import mixture_samples
from textenv.responses import Prompts
from textenv.rewards import GoldReward
from textenv.tasks.base import prompts_of
from textenv.tasks.concierge import CHECKPOINT, WEIGHTS, Concierge, attributes_of, utility_deviation
from textenv.vector_env import TextVectorEnv

REFERENCE_PROMPTS = 512
"""Fixed validation prompts whose samples set the utility's unit."""
REFERENCE_SAMPLES = 64
"""Samples of the reference to each of them."""
OPTIMUM_PROMPTS = 128
"""Fixed test prompts for which J* is shipped."""
OPTIMUM_SAMPLES = 256
"""Samples to each of them from the reference, and as many from a trained policy."""
PROPOSAL_TOKENS = 300_000
"""Response tokens that the policy which proposes good responses is trained on."""

Report = Callable[[str, int, int], None]


def write_scored_samples(reference: LanguageModel, generator: torch.Generator, report: Report) -> None:
    """Writes the attributes of the reference's samples, and the deviation of their gold score."""
    task = Concierge()
    prompts = prompts_of(task, task.fixed_prompts("validation", REFERENCE_PROMPTS))
    parts = []
    for index in torch.arange(REFERENCE_PROMPTS).split(16):
        sample = reference.sample(
            prompts[index], group_size=REFERENCE_SAMPLES, max_tokens=task.response_length, generator=generator
        )
        parts.append(attributes_of(sample.responses).view(len(index), REFERENCE_SAMPLES, -1))
        report("reference samples", int(index[-1]) + 1, REFERENCE_PROMPTS)
    attributes = torch.cat(parts)
    weights = torch.tensor(WEIGHTS)
    scores = (attributes @ weights / weights.sum()).double()
    truth = {
        "score_deviation": float(scores.var(dim=1).mean().sqrt()),
        "score_mean": float(scores.mean()),
        "best_of_64_mean": float(scores.amax(dim=1).mean()),
        "prompts": REFERENCE_PROMPTS,
        "samples_per_prompt": REFERENCE_SAMPLES,
    }
    save_file({"attributes": attributes.half()}, CHECKPOINT / "reference_samples.safetensors")
    (CHECKPOINT / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    utility_deviation.cache_clear()


def train_proposal(reference: LanguageModel, seed: int, report: Report) -> PPO:
    """A policy trained on the true utility, to propose the responses that J* is about."""
    task = Concierge()
    env = TextVectorEnv(task, num_envs=1, reference=reference, kl="full")
    agent = PPO(env, PPOConfig(), seed)

    def after_iteration(agent: PPO, _metrics: dict[str, float]) -> bool:
        report("proposal policy", agent.num_timesteps, PROPOSAL_TOKENS)
        return True

    agent.learn(PROPOSAL_TOKENS, after_iteration)
    return agent


def write_optimum_samples(
    reference: LanguageModel, proposal: HasLanguageModel, generator: torch.Generator, report: Report
) -> None:
    """Writes attributes and importance weights of responses to the test prompts, drawn from both models."""
    task = Concierge()
    prompts = prompts_of(task, task.fixed_prompts("test", OPTIMUM_PROMPTS))
    parts = []
    for index in torch.arange(OPTIMUM_PROMPTS).split(16):
        parts.append(_mixture(task, reference, proposal, prompts[index], generator))
        report("optimum samples", int(index[-1]) + 1, OPTIMUM_PROMPTS)
    save_file(
        {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, CHECKPOINT / "optimum.safetensors"
    )


def _mixture(
    task: Concierge, reference: LanguageModel, proposal: HasLanguageModel, prompts: Prompts, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    judged = [
        evaluate(
            policy,
            task,
            reference,
            GoldReward(task),
            prompts=prompts,
            samples_per_prompt=OPTIMUM_SAMPLES,
            generator=generator,
        )
        for policy in (proposal, AsPolicy(reference))
    ]
    across = logprobs_under(proposal, judged[1].responses, task, reference)
    samples = mixture_samples(judged[0], judged[1], across, lambda evaluation: evaluation.reward)
    golds = [each.gold.attributes.view(len(prompts), OPTIMUM_SAMPLES, -1) for each in judged if each.gold is not None]
    logprobs = [judged[0].reference_logprobs, judged[1].logprobs]
    return {
        "attributes": torch.cat(golds, dim=1).half(),
        "log_weights": samples.log_weights.float(),
        "reference_logprobs": torch.cat([each.sum(dim=1).view(len(prompts), -1) for each in logprobs], dim=1),
    }


class AsPolicy:
    """A language model as a policy."""

    def __init__(self, language_model: LanguageModel) -> None:
        self.language_model = language_model


def clear(folder: Path) -> None:
    """Removes what an earlier build left, so that nothing old is mistaken for new."""
    for file in ("truth.json", "reference_samples.safetensors", "optimum.safetensors"):
        (folder / file).unlink(missing_ok=True)
