"""Context distillation on Exact-v0, where teacher and student are known to the last response."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.context_distillation import ContextDistillation, ContextDistillationConfig, with_context
from textenv.demonstrations import SAMPLES
from textenv.enumeration import all_prompts, next_token_tree, response_logprobs
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses
from textenv.tasks.base import prompts_of
from textenv.vector_env import TextVectorEnv

TEXT = "e e a"


def whole_logprobs(model: LanguageModel, prompts: Prompts) -> Tensor:
    with torch.no_grad():
        return response_logprobs(next_token_tree(model, prompts, 5), model.eos_id).double()


def teacher_and_prompts(agent: ContextDistillation) -> tuple[Tensor, Prompts]:
    prompts = all_prompts(agent.env.task)
    context = torch.tensor(agent.env.reference.encode(TEXT))
    return whole_logprobs(agent.env.reference, with_context(context, prompts, agent.env.reference)), prompts


def kl_to(teacher: Tensor, student: Tensor) -> float:
    return float((teacher.exp() * (teacher - student)).sum(dim=1).mean())


def test_the_loss_is_the_kl_of_whole_responses() -> None:
    env = TextVectorEnv("exact", kl="full")
    agent = ContextDistillation(env, ContextDistillationConfig(context=TEXT, n_prompts=256, group_size=16), 0)
    metrics: list[dict[str, float]] = []
    agent.learn(1, lambda agent, numbers: metrics.append(numbers) is None)
    teacher, prompts = teacher_and_prompts(agent)
    expected = kl_to(teacher, whole_logprobs(env.reference, prompts))
    assert expected > 0.05
    length = agent.num_timesteps / (256 * 16)
    assert metrics[0]["kl_loss"] * length == pytest.approx(expected, rel=0.05)
    assert metrics[0]["kl_teacher"] == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_the_student_comes_to_answer_as_the_teacher_does_with_the_context() -> None:
    agent = ContextDistillation(TextVectorEnv("exact", kl="full"), ContextDistillationConfig(context=TEXT), 0)
    teacher, prompts = teacher_and_prompts(agent)
    start = kl_to(teacher, whole_logprobs(agent.language_model, prompts))
    agent.learn(10_000)
    assert kl_to(teacher, whole_logprobs(agent.language_model, prompts)) < 0.2 * start


class ThirdIsBest:
    """Finds the third of all responses best."""

    name = "third"

    def __init__(self) -> None:
        self.scored: list[Responses] = []

    def __call__(self, responses: Responses) -> Tensor:
        self.scored.append(responses)
        return torch.arange(len(responses)).roll(3).float()


def test_exemplars_are_the_best_by_the_reward_of_many_responses() -> None:
    reward = ThirdIsBest()
    env = TextVectorEnv("exact", kl="full", reward_function=reward)
    agent = ContextDistillation(env, ContextDistillationConfig(), 0)
    agent.learn(1)
    first = reward.scored[0]
    assert len(first) == SAMPLES
    assert agent.context is not None
    assert agent.context.tolist() == first.prompts.to_lists()[0] + first.to_lists()[2]


@pytest.mark.slow
def test_an_exemplar_does_not_help_concierges_reference() -> None:
    """As its docstring says: the model has learned from texts whose answers ignore each other."""
    env = TextVectorEnv("concierge", kl="full")
    task, reference = env.task, env.reference
    prompts = prompts_of(task, task.fixed_prompts("test", 48))
    agent = ContextDistillation(env, ContextDistillationConfig(), 0)
    gold = []
    for asked in (prompts, with_context(agent.choose_exemplars(), prompts, reference)):
        generator = torch.Generator().manual_seed(1)
        said = reference.sample(asked, group_size=8, max_tokens=task.response_length, generator=generator).responses
        judged = task.gold(Responses(prompts, said.ids, said.mask))
        assert judged is not None
        gold.append(float(judged.score.mean()))
    assert gold[1] < gold[0] - 0.03


def test_a_token_that_begins_texts_stays_first() -> None:
    reference: Any = SimpleNamespace(tokenizer=SimpleNamespace(bos_token_id=1), pad_id=0)
    prompts = Prompts.from_lists([[1, 5], [5, 6], [1, 5, 1, 6]], 0)
    rows = with_context(torch.tensor([8, 9]), prompts, reference).to_lists()
    assert rows == [[1, 8, 9, 5], [8, 9, 5, 6], [8, 9, 1, 5, 1, 6]]
    begun = with_context(torch.tensor([1, 8]), prompts[:1], reference).to_lists()
    assert begun == [[1, 8, 5]]


def test_what_cannot_be_read_is_refused() -> None:
    env = TextVectorEnv("exact", kl="full")
    with pytest.raises(UsageError, match=r"2 exemplars of the task 'exact' can have 16 tokens, but of the 16 that"):
        ContextDistillation(env, ContextDistillationConfig(n_exemplars=2), 0)
    with pytest.raises(UsageError, match=r"the context can have 9 tokens, .* response leave 8; give a shorter context"):
        ContextDistillation(env, ContextDistillationConfig(context="a b c d e a b c d"), 0)
    concierge = TextVectorEnv("concierge", kl="full")
    with pytest.raises(UsageError, match="'concierge' does not know all words of the context 'be a zebra'"):
        ContextDistillation(concierge, ContextDistillationConfig(context="be a zebra"), 0)
