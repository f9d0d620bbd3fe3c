"""PPO-ptx: what it adds to PPO's step, and where its texts come from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.language_agent import LanguageModelAgent
from agents.ppo import PPO, PPOConfig
from agents.ppo_ptx import PPOPtx, PPOPtxConfig
from agents.rlhf import RLHFConfig, prepare
from textenv import models, tasks
from textenv.enumeration import all_logprobs
from textenv.errors import UsageError
from textenv.pretraining_texts import MOST_TOKENS, PretrainingTexts, TextFile
from textenv.tasks.exact import Exact, written_answers
from textenv.vector_env import TextVectorEnv

SMALL: dict[str, Any] = {"n_prompts": 4, "group_size": 2, "n_epochs": 1, "n_minibatches": 1}


def losses_of(agent: LanguageModelAgent, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """What the first optimiser step is taken on."""
    caught: list[dict[str, Tensor]] = []
    with monkeypatch.context() as patch:
        patch.setattr(LanguageModelAgent, "step", lambda self, losses: caught.append(losses) or 0.0)
        agent.learn(1)
    return caught[0]


def test_its_step_is_ppos_and_the_cross_entropy_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    env = TextVectorEnv("exact", kl="full")
    drawn = Exact().pretraining_texts(5, np.random.default_rng(0))
    monkeypatch.setattr(env.task, "pretraining_texts", lambda count, rng: drawn, raising=False)
    agent = PPOPtx(env, PPOPtxConfig(**SMALL, ptx_coef=0.3), 0)
    beside = losses_of(agent, monkeypatch)
    alone = losses_of(PPO(env, PPOConfig(**SMALL), 0), monkeypatch)
    assert beside.keys() - alone.keys() == {"pretraining loss"}
    assert all(beside[name].item() == alone[name].item() for name in alone)

    # By transformers' own forward pass, text by text.
    logprobs: list[float] = []
    for prompt, text in zip(drawn.prompts.to_lists(), drawn.to_lists(), strict=True):
        said = env.reference.model(torch.tensor([prompt + text])).logits[0].log_softmax(dim=1)
        logprobs += [float(said[len(prompt) - 1 + place, token]) for place, token in enumerate(text)]
    assert beside["pretraining loss"].item() == pytest.approx(-0.3 * np.mean(logprobs), rel=1e-4)


def cross_entropy(agent: LanguageModelAgent) -> float:
    """Of all answers as they were written for Exact's reference, in nats a response."""
    _, written = written_answers()
    return float(-(written.exp() * all_logprobs(agent.env.task, agent.language_model)).sum(dim=1).mean())


@pytest.mark.slow
def test_it_keeps_the_language_that_ppo_loses() -> None:
    agents: list[LanguageModelAgent] = []
    for agent_class, config in (
        (PPO, PPOConfig(learning_rate=1e-3)),
        (PPOPtx, PPOPtxConfig(learning_rate=1e-3, ptx_coef=2.0)),
    ):
        metrics: list[dict[str, float]] = []
        agent: Any = agent_class(TextVectorEnv("exact", kl="full"), config, 0)
        agent.learn(3000, lambda agent, numbers, metrics=metrics: metrics.append(numbers) is None)
        agents.append(agent)
    assert all(numbers["pretraining_loss"] > 0 for numbers in metrics)
    kept, lost = cross_entropy(agents[1]), cross_entropy(agents[0])
    start = -float((written_answers()[1].exp() * written_answers()[1]).sum(dim=1).mean())
    assert kept - start < (lost - start) / 2


def test_exacts_texts_are_the_answers_that_its_reference_was_fitted_to() -> None:
    task: Any = tasks.load("exact")
    texts = task.pretraining_texts(4000, np.random.default_rng(0))
    prompts = [tuple(prompt) for prompt in texts.prompts.to_lists()]
    assert all(abs(prompts.count(tuple(prompt)) - 1000) < 120 for prompt in task.prompts)
    every, logprobs = written_answers()
    asked = [tuple(prompt) for prompt in every.prompts.to_lists()]
    known = {
        (asked[row // every.group_size], tuple(answer)): logprob
        for row, (answer, logprob) in enumerate(zip(every.to_lists(), logprobs.flatten().tolist(), strict=True))
    }
    seen = np.array([known[prompt, tuple(text)] for prompt, text in zip(prompts, texts.to_lists(), strict=True)])
    entropy = -float((logprobs.exp() * logprobs).sum(dim=1).mean())
    assert -seen.mean() == pytest.approx(entropy, abs=5 * seen.std() / math.sqrt(len(seen)))


@pytest.mark.parametrize("name", ["concierge", "reviews"])
def test_the_worlds_texts_are_those_of_its_grammars(name: str) -> None:
    task = tasks.load(name)
    assert isinstance(task, PretrainingTexts)
    texts = task.pretraining_texts(20, np.random.default_rng(0))
    reference = models.load(task.reference)
    ids = torch.cat([texts.ids[texts.mask], texts.prompts.ids[texts.prompts.mask]])
    assert int(ids.max()) < reference.vocab_size
    # The reference has learned from such texts, and finds them far likelier than words drawn blindly.
    logprobs = reference.logprobs(texts)[texts.mask]
    assert -float(logprobs.mean()) < 0.3 * math.log(reference.vocab_size)
    assert texts.to_lists() != task.pretraining_texts(20, np.random.default_rng(1)).to_lists()
    assert texts.to_lists() == task.pretraining_texts(20, np.random.default_rng(0)).to_lists()


def test_a_file_of_texts_is_read_whole_cut_and_ended(tmp_path: Path) -> None:
    reference = models.load("concierge")
    words = [reference.decode([token]) for token in range(10, 20)]
    (tmp_path / "texts.jsonl").write_text(
        f'{{"text": "{" ".join(words[:3])}"}}\n{{"text": "{" ".join(words * 26)}"}}\n'
    )
    file = TextFile(tmp_path / "texts.jsonl", reference)
    ids = list(range(10, 20))
    assert file.pieces == [[*ids[:3], reference.eos_id], (ids * 26)[:MOST_TOKENS], [*ids[6:], reference.eos_id]]
    texts = file.pretraining_texts(50, np.random.default_rng(0))
    whole = [[*prompt, *rest] for prompt, rest in zip(texts.prompts.to_lists(), texts.to_lists(), strict=True)]
    assert sorted(map(tuple, file.pieces)) == sorted(set(map(tuple, whole)))
    assert all(len(prompt) == 1 for prompt in texts.prompts.to_lists())


def test_texts_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    config = RLHFConfig(task="exact", agent="ppo-ptx", reward="gold")

    def flags(texts: Path) -> RLHFConfig:
        return replace(config, algorithm=PPOPtxConfig(ptx_texts=str(texts)))

    with pytest.raises(UsageError, match="there is no texts file"):
        prepare(flags(tmp_path / "missing.txt"))
    (tmp_path / "texts.jsonl").write_text('{"prompt": "a b"}\n')
    with pytest.raises(UsageError, match=r'line 1: no field "text"; expected is \{"text": "\.\.\."\}'):
        prepare(flags(tmp_path / "texts.jsonl"))
    models.load("exact").save(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("a b\nb c\nc d\n")
    own = replace(
        config, task=None, prompts=tmp_path / "prompts.txt", model=str(tmp_path / "model"), response_length=5,
        reward="builtins:print",
    )  # fmt: skip
    with pytest.raises(
        UsageError, match="the task 'text' has no method pretraining_texts; give texts with --ptx-texts"
    ):
        prepare(own)


def test_the_file_of_texts_is_an_input_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("a b\n")
    config = RLHFConfig(task="exact", agent="ppo-ptx", reward="gold", algorithm=PPOPtxConfig(ptx_texts="texts.txt"))
    setting = prepare(config)
    kept = setting.config.to_json()
    assert kept["ptx_texts"] == str(tmp_path / "texts.txt")
    assert RLHFConfig.from_json(kept) == setting.config
    before = setting.inputs()["texts.txt (--ptx-texts)"]
    (tmp_path / "texts.txt").write_text("a b c\n")
    assert prepare(config).inputs()["texts.txt (--ptx-texts)"] != before
