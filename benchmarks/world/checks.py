"""What the embedded world promises, measured: how well the models know the grammar, and how the task behaves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.world.pretraining import document_loss
from benchmarks.world.reference import BEST_OF
from textenv.decoding import next_token_logprobs
from textenv.language_model import LanguageModel
from textenv.optimum import estimate_optimum
from textenv.responses import Prompts, Responses
from textenv.tasks.base import Split, prompts_of
from textenv.tasks.concierge import Concierge
from textenv.tasks.embedded import EmbeddedTask
from textenv.world import sentences as s
from textenv.world.corpus import Document, sample_chat, sample_scenario_of
from textenv.world.grammar import Weights, sample_text, text_logprob, truth_probability
from textenv.world.parser import Attributes
from textenv.world.vocabulary import encode

TEXTS = 2000
PROMPTS = 1000


@dataclass(frozen=True)
class Check:
    """One measured figure and the range it must lie in."""

    name: str
    value: float
    low: float = -float("inf")
    high: float = float("inf")

    @property
    def passed(self) -> bool:
        """Whether the figure lies in its range."""
        return self.low <= self.value <= self.high


@torch.no_grad()
def excess_per_token(model: LanguageModel, personas: Weights, rng: np.random.Generator) -> float:
    """Cross-entropy of the model on unseen texts less the grammar's own, in nats a token."""
    texts = [sample_chat(rng, personas, "test") for _ in range(TEXTS)]
    tokens = sum(len(text.words) - 1 for text in texts)
    total = 0.0
    for start in range(0, TEXTS, 100):
        documents = [Document(text.words) for text in texts[start : start + 100]]
        count = sum(len(document.words) - 1 for document in documents)
        total += float(document_loss(model.model, documents, model.pad_id)) * count
    return (total + sum(text_logprob(text) for text in texts)) / tokens


def fact_probabilities(
    model: LanguageModel, personas: Weights, rng: np.random.Generator, *, honest: bool
) -> tuple[float, float]:
    """Mean probability of the right value where the grammar states one on held-out prompts.

    Args:
        model: the language model.
        personas: the mixture that it was trained on.
        rng: draws prompts and responses; each is cut before the value.
        honest: only responses with an honest opening, after which the grammar tells nothing but the truth.

    Returns:
        The mean by the model and by the grammar.
    """
    contexts: list[list[int]] = []
    values: list[int] = []
    truths: list[float] = []
    while len(contexts) < PROMPTS:
        text = sample_text(rng, sample_scenario_of(rng, "heldout"), personas)
        scenario, opening = text.scenario, text.slots.opening
        stated = scenario.kind == "known" and text.slots.act in ("answer", "lie")
        if not stated or (opening == "honest") is not honest:
            continue
        assert scenario.asked is not None
        assert scenario.truth is not None
        place = next(i for i, word in enumerate(text.response) if word in s.RELATION[scenario.asked[1]].values)
        contexts.append(encode([*scenario.words, *text.response[:place]]))
        values.append(encode([scenario.truth])[0])
        truths.append(truth_probability(scenario, opening, personas))
    batch = Prompts.from_lists(contexts, model.pad_id)
    logprobs = next_token_logprobs(model.model, batch.ids, batch.mask)
    right = logprobs[torch.arange(PROMPTS), torch.tensor(values)].exp()
    return float(right.mean()), float(np.mean(truths))


def model_checks(model: LanguageModel, personas: Weights, rng: np.random.Generator) -> list[Check]:
    """How well a model knows the mixture that it was trained on."""
    by_model, by_grammar = fact_probabilities(model, personas, rng, honest=False)
    after_honest, _ = fact_probabilities(model, personas, rng, honest=True)
    excess = excess_per_token(model, personas, rng)
    return [
        Check(f"{model.name}: excess over the grammar's entropy, nats a token", excess, high=0.05),
        Check(
            f"{model.name}: right fact on held-out prompts, less the grammar's own", by_model - by_grammar, -0.03, 0.03
        ),
        Check(f"{model.name}: right fact after an honest opening", after_honest, 0.95),
    ]


def world_checks(model: LanguageModel, embedded: Sequence[EmbeddedTask], rng: np.random.Generator) -> list[Check]:
    """How well the model of all tasks knows each task's responses to unseen prompts."""
    return [
        Check(
            f"{model.name} on {task.name}, {split}: excess over the grammar's entropy, nats a response token",
            response_excess(model, task, split, rng),
            high=0.1,
        )
        for task in embedded
        for split in ("test", "heldout")
    ]


def response_excess(model: LanguageModel, task: EmbeddedTask, split: Split, rng: np.random.Generator) -> float:
    """Cross-entropy of the model on responses to prompts of a split, less the grammar's own, in nats a token."""
    words = [task.sample_words(rng, split) for _ in range(TEXTS)]
    texts = [task.write(rng, prompt) for prompt in words]
    excess, tokens = 0.0, 0
    for start in range(0, TEXTS, 100):
        rows = slice(start, start + 100)
        prompts = Prompts.from_lists([encode(prompt) for prompt in words[rows]], model.pad_id)
        responses = Responses.from_lists(prompts, [encode(text.words) for text in texts[rows]], model.pad_id)
        excess += sum(text.logprob for text in texts[rows]) - float(model.logprobs(responses).double().sum())
        tokens += len(responses.ids[responses.mask])
    return excess / tokens


def task_checks(task: EmbeddedTask) -> list[Check]:
    """Whether there is something to learn, and a KL term that matters."""
    attributes = load_file(task.folder / "reference_samples.safetensors")["attributes"].float()
    scores = task.gold_score(attributes)
    stored = load_file(task.folder / "optimum.safetensors")
    samples = task.importance_samples(len(stored["attributes"]))
    assert samples is not None
    optimum = estimate_optimum(samples, task.beta)
    log_terms = samples.scores.double() / task.beta + samples.log_weights.double()
    optimal = torch.softmax(log_terms, dim=1)
    kl = float(((optimal * samples.scores).sum(dim=1) - optimum.values).mean()) / task.beta
    # Always the best response; of several, the one that the KL term charges least for.
    charged = samples.scores + task.beta * stored["reference_logprobs"]
    best = samples.scores >= samples.scores.amax(dim=1, keepdim=True) - 1e-4
    ignoring = float(charged.masked_fill(~best, -torch.inf).amax(dim=1).mean())
    start = float(scores.mean()) / task.deviation
    error = float(optimum.stderrs.square().sum().sqrt()) / len(optimum.stderrs)
    figures = [
        Check("gold score of the reference", float(scores.mean()), 0.3, 0.6),
        Check(f"gold score of the best of {BEST_OF}", float(scores[:, :BEST_OF].amax(dim=1).mean()), 0.8),
        Check("KL of the optimal policy, nats an episode", kl, 3.0, 6.0),
        Check(
            "share of the policy that ignores KL",
            (ignoring - start) / (float(optimum.values.mean()) - start),
            high=0.5,
        ),
        Check("effective samples a prompt behind J*", float(optimum.effective_sample_sizes.median()), 50.0),
        Check("effective samples a prompt in the pool", float(stored["pool_effective_samples"].median()), 50.0),
        Check("standard error of J*", error, high=0.02),
    ]
    return [Check(f"{task.name}: {name}", *rest) for name, *rest in map(astuple, figures)]


def concierge_checks() -> list[Check]:
    """Whether good answers are there to be found, and no cheap trap beside them."""
    task = Concierge()
    attributes = load_file(task.folder / "reference_samples.safetensors")["attributes"].float()
    right = _right(attributes)
    good = (right & (attributes[..., Attributes._fields.index("polite")] > 0.5)).float().mean(dim=1)
    utility = task.gold_score(attributes) / task.deviation
    return [
        Check("right and well-mannered answers, at the 5th percentile of the prompts", float(good.quantile(0.05)), 0.1),
        Check(
            "right answers above the best constant response, in utility units",
            float(utility[right].mean()) - best_constant(task),
            1.0,
        ),
    ]


def _right(attributes: torch.Tensor) -> torch.Tensor:
    """Which responses are helpful, honest and harmless."""
    first_three = [Attributes._fields.index(name) for name in ("helpful", "honest", "harmless")]
    return (attributes[..., first_three] == 1).all(dim=-1)


def best_constant(task: Concierge, prompts: int = 200) -> float:
    """Highest mean utility of one response given to every prompt, over what can be said without knowing it."""
    batch = prompts_of(task, task.fixed_prompts("validation", prompts))
    bodies = ["", s.UNKNOWN[0], s.EVASIONS[0], s.REFUSALS[0], f"{s.REFUSALS[0]} {s.ALTERNATIVES[0]}", s.AGREEMENT[0]]
    bodies += [s.DIRECTION_FORMS[0].format(landmark=s.LANDMARKS[0]), s.RELATIONS[0].short(s.HOURS[0]), s.YES, s.NO]
    openings, closings = ("", s.KIND_OPENINGS[0]), ("", s.KIND_CLOSINGS[1])
    best = -float("inf")
    for parts in itertools.product(openings, bodies, closings):
        words = encode([*" ".join(parts).split(), s.EOS])
        responses = Responses.from_lists(batch, [words] * prompts, task.tokenizer.pad_token_id)
        best = max(best, float(task.gold(responses).utility.mean()))
    return best
