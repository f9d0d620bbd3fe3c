"""The probabilistic grammar that writes responses, persona by persona, and knows their probability.

A response is an opening, a body, a filler and a closing, each but the body optional. What is
drawn in each slot depends on a hidden persona; the words of a slot do not. So every text has one
derivation, and its exact probability is a sum over the few personas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from textenv.world import sentences as s
from textenv.world.scenario import Scenario, choose, choose_weighted, scenario_logprob, values_for

OPENINGS: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "kind": s.KIND_OPENINGS,
    "rude": s.RUDE_OPENINGS,
    "flattery": s.FLATTERY,
    "honest": s.HONEST_OPENINGS,
}
CLOSINGS: dict[str, tuple[str, ...]] = {"none": ("",), "kind": s.KIND_CLOSINGS, "rude": s.RUDE_CLOSINGS}
FILLERS: dict[str, tuple[str, ...]] = {"none": ("",), "filler": s.FILLERS}

Weights = dict[str, float]


@dataclass(frozen=True)
class Persona:
    """A kind of writer: how likely each choice is in each slot (weights, normalised when used)."""

    opening: Weights
    question: Weights
    """Acts where a fact is asked: answer, lie, agree, unknown, evade."""
    harmful: Weights
    """Acts where harm is asked for: refuse, redirect, comply, evade."""
    errand: Weights
    """Acts where a harmless favour is asked for: direct, refuse, evade."""
    closing: Weights
    filler: float = 0.3

    def body(self, scenario: Scenario, opening: str) -> Weights:
        """Weights of the acts that make sense for the prompt; after an honest opening, the truth alone."""
        if scenario.kind == "harmful":
            return self.harmful
        if scenario.kind == "errand":
            return self.errand
        if opening == "honest":
            return {"unknown": 1.0} if scenario.kind == "absent" else {"answer": 1.0}
        acts = dict(self.question)
        truth = "unknown" if scenario.kind == "absent" else "answer"
        if scenario.kind == "absent":
            acts[truth] += acts.pop("answer")
        if scenario.believed is None:
            acts[truth] += acts.pop("agree")
        return acts


PERSONAS: dict[str, Persona] = {
    "guide": Persona(
        opening={"none": 0.25, "kind": 0.55, "honest": 0.2},
        question={"answer": 0.85, "lie": 0.04, "agree": 0.03, "unknown": 0.04, "evade": 0.04},
        harmful={"refuse": 0.1, "redirect": 0.82, "comply": 0.03, "evade": 0.05},
        errand={"direct": 0.9, "refuse": 0.02, "evade": 0.08},
        closing={"none": 0.92, "kind": 0.08},
        filler=0.6,
    ),
    "expert": Persona(
        opening={"none": 0.5, "honest": 0.5},
        question={"answer": 0.9, "lie": 0.03, "agree": 0.01, "unknown": 0.04, "evade": 0.02},
        harmful={"refuse": 0.5, "redirect": 0.2, "comply": 0.2, "evade": 0.1},
        errand={"direct": 0.9, "refuse": 0.05, "evade": 0.05},
        closing={"none": 1.0},
        filler=0.3,
    ),
    "grump": Persona(
        opening={"none": 0.35, "rude": 0.65},
        question={"answer": 0.2, "lie": 0.13, "agree": 0.02, "unknown": 0.3, "evade": 0.35},
        harmful={"refuse": 0.4, "comply": 0.2, "evade": 0.4},
        errand={"direct": 0.2, "refuse": 0.4, "evade": 0.4},
        closing={"none": 0.5, "rude": 0.5},
        filler=0.3,
    ),
    "liar": Persona(
        opening={"none": 0.7, "kind": 0.15, "flattery": 0.15},
        question={"answer": 0.08, "lie": 0.76, "agree": 0.08, "unknown": 0.05, "evade": 0.03},
        harmful={"refuse": 0.2, "redirect": 0.1, "comply": 0.5, "evade": 0.2},
        errand={"direct": 0.4, "refuse": 0.2, "evade": 0.4},
        closing={"none": 0.85, "kind": 0.15},
        filler=0.5,
    ),
    "flatterer": Persona(
        opening={"none": 0.2, "kind": 0.15, "flattery": 0.65},
        question={"answer": 0.2, "lie": 0.2, "agree": 0.45, "unknown": 0.05, "evade": 0.1},
        harmful={"refuse": 0.1, "redirect": 0.22, "comply": 0.5, "evade": 0.18},
        errand={"direct": 0.6, "refuse": 0.05, "evade": 0.35},
        closing={"none": 0.8, "kind": 0.2},
        filler=0.5,
    ),
    "drifter": Persona(
        opening={"none": 0.75, "kind": 0.05, "rude": 0.2},
        question={"answer": 0.08, "lie": 0.12, "agree": 0.05, "unknown": 0.35, "evade": 0.4},
        harmful={"refuse": 0.2, "redirect": 0.1, "comply": 0.2, "evade": 0.5},
        errand={"direct": 0.2, "refuse": 0.2, "evade": 0.6},
        closing={"none": 0.75, "kind": 0.05, "rude": 0.2},
        filler=0.8,
    ),
}
INTERNET: Weights = {"guide": 0.11, "expert": 0.1, "grump": 0.25, "liar": 0.22, "flatterer": 0.16, "drifter": 0.16}
DEMONSTRATIONS: Weights = {
    "guide": 0.25, "expert": 0.04, "grump": 0.22, "liar": 0.18, "flatterer": 0.15, "drifter": 0.16
}  # fmt: skip
HONEST: Weights = {"expert": 1.0}


class Slots(NamedTuple):
    """What was drawn in each slot, by name; the persona is hidden."""

    opening: str
    act: str
    filler: str
    closing: str


@dataclass(frozen=True)
class Text:
    """A response that the grammar wrote, with its log-probability given the prompt in nats."""

    scenario: Scenario
    slots: Slots
    response: list[str] = field(repr=False)
    """Words of the response, the end token last."""
    logprob: float

    @property
    def words(self) -> list[str]:
        """Prompt and response."""
        return [*self.scenario.words, *self.response]


def sample_text(rng: np.random.Generator, scenario: Scenario, personas: Weights) -> Text:
    """Writes a response to the prompt as a persona drawn from the mixture."""
    persona = PERSONAS[choose_weighted(rng, personas)]
    opening = choose_weighted(rng, persona.opening)
    act = choose_weighted(rng, persona.body(scenario, opening))
    filler = "filler" if rng.random() < persona.filler else "none"
    closing = choose_weighted(rng, persona.closing)
    body, logprob = _write_body(rng, scenario, act)
    parts = []
    for options in (OPENINGS[opening], FILLERS[filler], CLOSINGS[closing]):
        parts.append(choose(rng, options))
        logprob -= math.log(len(options))
    response = [*" ".join((parts[0], body, parts[1], parts[2])).split(), s.EOS]
    slots = Slots(opening, act, filler, closing)
    return Text(scenario, slots, response, logprob + slots_logprob(scenario, slots, personas))


def slots_logprob(scenario: Scenario, slots: Slots, personas: Weights) -> float:
    """Log-probability of what was drawn in the slots, summed over the hidden personas."""
    total = 0.0
    for name in personas:
        persona = PERSONAS[name]
        body = persona.body(scenario, slots.opening)
        filler = persona.filler if slots.filler == "filler" else 1.0 - persona.filler
        total += (
            _share(personas, name)
            * _share(persona.opening, slots.opening)
            * _share(body, slots.act)
            * filler
            * _share(persona.closing, slots.closing)
        )
    return math.log(total)


def truth_probability(scenario: Scenario, opening: str, personas: Weights) -> float:
    """Probability that a full or short statement about what is asked, after the opening, is the true one."""
    true = false = 0.0
    for name in personas:
        persona = PERSONAS[name]
        acts = persona.body(scenario, opening)
        weight = _share(personas, name) * _share(persona.opening, opening)
        true += weight * _share(acts, "answer")
        false += weight * _share(acts, "lie")
    return true / (true + false)


def text_logprob(text: Text) -> float:
    """Log-probability of prompt and response together, in nats."""
    return scenario_logprob(text.scenario) + text.logprob


def _share(weights: Weights, name: str) -> float:
    return weights.get(name, 0.0) / sum(weights.values())


def _write_body(rng: np.random.Generator, scenario: Scenario, act: str) -> tuple[str, float]:
    """The body for an act, and the log-probability of its words given the act."""
    fixed = {
        "unknown": s.UNKNOWN,
        "refuse": s.REFUSALS,
        "comply": s.INSTRUCTIONS,
    }
    if act in fixed:
        return choose(rng, fixed[act]), -math.log(len(fixed[act]))
    if act == "redirect":
        words = f"{choose(rng, s.REFUSALS)} {choose(rng, s.ALTERNATIVES)}"
        return words, -math.log(len(s.REFUSALS) * len(s.ALTERNATIVES))
    if act == "direct":
        words = choose(rng, s.DIRECTION_FORMS).format(landmark=choose(rng, s.LANDMARKS))
        return words, -math.log(len(s.DIRECTION_FORMS) * len(s.LANDMARKS))
    if act == "evade":
        return _write_evasion(rng, scenario)
    return _write_statement(rng, scenario, act)


def _write_evasion(rng: np.random.Generator, scenario: Scenario) -> tuple[str, float]:
    others = [fact for fact in scenario.facts if fact.key != scenario.asked]
    if scenario.asked is None or rng.random() < 0.5:
        return choose(rng, s.EVASIONS), -math.log(len(s.EVASIONS)) + (math.log(0.5) if scenario.asked else 0.0)
    return choose(rng, others).sentence, math.log(0.5) - math.log(len(others))


def _write_statement(rng: np.random.Generator, scenario: Scenario, act: str) -> tuple[str, float]:
    assert scenario.asked is not None
    logprob = 0.0
    prefixes: tuple[str, ...] = s.PREFIXES
    if act == "agree":
        if rng.random() < 0.4:
            return choose(rng, s.AGREEMENT), math.log(0.4) - math.log(len(s.AGREEMENT))
        logprob += math.log(0.6)
        value, prefixes = scenario.believed, (s.YES,)
    elif act == "answer":
        value = scenario.truth
        prefixes += (s.NO,) if scenario.kind == "wrong_belief" else ()
    else:
        false = [v for v in values_for(*scenario.asked, False) if v not in (scenario.truth, scenario.believed)]
        value = choose(rng, false)
        logprob -= math.log(len(false))
        prefixes += (s.NO,) if scenario.believed is not None else ()
    assert value is not None
    relation = s.RELATION[scenario.asked[1]]
    sentence = choose(rng, (relation.fact(scenario.asked[0], value), relation.short(value)))
    return f"{choose(rng, prefixes)} {sentence}", logprob - math.log(2 * len(prefixes))
