"""What a prompt says: facts about the town, and a request. Written, scored and read back here."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from textenv.world import sentences as s
from textenv.world import splits

Kind = Literal["known", "absent", "wrong_belief", "right_belief", "harmful", "errand", "other"]
KINDS: dict[Kind, float] = {
    "known": 0.5,
    "absent": 0.12,
    "wrong_belief": 0.14,
    "right_belief": 0.06,
    "harmful": 0.1,
    "errand": 0.08,
}
FACT_KINDS = ("known", "wrong_belief", "right_belief")
"""Kinds that ask for a fact which the prompt states."""
FACT_COUNTS = {2: 0.4, 3: 0.6}


@dataclass(frozen=True)
class Fact:
    """A place has a value under a relation."""

    place: str
    relation: str
    value: str

    @property
    def key(self) -> tuple[str, str]:
        """What the fact is about."""
        return self.place, self.relation

    @property
    def sentence(self) -> str:
        """The fact said in full."""
        return s.RELATION[self.relation].fact(self.place, self.value)


@functools.cache
def is_held_out(fact: Fact) -> bool:
    """Whether this combination of place and value never occurs in training texts."""
    return splits.is_held_out(fact.place, fact.relation, fact.value)


@functools.cache
def values_for(place: str, relation: str, held_out: bool) -> tuple[str, ...]:
    """The values that the relation may take for the place, among held-out or training combinations."""
    values = s.RELATION[relation].values
    return tuple(value for value in values if is_held_out(Fact(place, relation, value)) is held_out)


@dataclass(frozen=True)
class Scenario:
    """The meaning of one prompt."""

    facts: tuple[Fact, ...]
    kind: Kind
    asked: tuple[str, str] | None = None
    """(place, relation) of the question; None for harmful requests and errands."""
    believed: str | None = None
    """The value that the user takes for granted, where the user believes one."""
    request: str = ""
    """The user's own sentence."""

    @functools.cached_property
    def known(self) -> dict[tuple[str, str], str]:
        """Value of each (place, relation) that the prompt states."""
        return {fact.key: fact.value for fact in self.facts}

    @property
    def truth(self) -> str | None:
        """The true value of what is asked, or None where the prompt does not say."""
        return None if self.asked is None else self.known.get(self.asked)

    @property
    def words(self) -> list[str]:
        """The prompt, ready for the response."""
        facts = [word for fact in self.facts for word in fact.sentence.split()]
        return [s.BOS, *facts, s.USER, *self.request.split(), s.ASSISTANT]


T = TypeVar("T")


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def choose_weighted(rng: np.random.Generator, weights: dict[T, float]) -> T:
    """One of the keys, in proportion to its weight."""
    point = rng.random() * sum(weights.values())
    for option, weight in weights.items():
        point -= weight
        if point < 0:
            return option
    return option


def sample_scenario(rng: np.random.Generator, *, held_out: bool = False) -> Scenario:
    """Draws a prompt; with `held_out`, the fact that is asked for is a held-out combination.

    The facts of a prompt are about different places and of different relations. Held-out prompts
    are all of the kinds that ask for a stated fact.
    """
    count = choose_weighted(rng, FACT_COUNTS)
    places = [s.PLACES[i] for i in rng.permutation(len(s.PLACES))[:count]]
    relations = [s.RELATIONS[i].name for i in rng.permutation(len(s.RELATIONS))]
    target = int(rng.integers(count))
    facts = []
    for index, (place, relation) in enumerate(zip(places, relations, strict=False)):
        values = values_for(place, relation, held_out and index == target)
        if not values:
            return sample_scenario(rng, held_out=held_out)
        facts.append(Fact(place, relation, choose(rng, values)))
    kinds = {kind: weight for kind, weight in KINDS.items() if kind in FACT_KINDS or not held_out}
    return _with_request(rng, tuple(facts), choose_weighted(rng, kinds), facts[target])


def sample_request(rng: np.random.Generator, facts: tuple[Fact, ...], kinds: dict[Kind, float]) -> Scenario:
    """Draws another prompt with the same facts, of a kind in proportion to its weight."""
    return _with_request(rng, facts, choose_weighted(rng, kinds), choose(rng, facts))


def _with_request(rng: np.random.Generator, facts: tuple[Fact, ...], kind: Kind, target: Fact) -> Scenario:
    if kind == "harmful" or kind == "errand":
        verbs, forms = (s.HARMS, s.HARM_FORMS) if kind == "harmful" else (s.ERRANDS, s.ERRAND_FORMS)
        request = choose(rng, forms).format(verb=choose(rng, verbs), target=choose(rng, (*s.PLACES, *s.PEOPLE)))
        return Scenario(facts, kind, request=request)
    if kind == "absent":
        strangers = [place for place in s.PLACES if all(place != fact.place for fact in facts)]
        place = target.place if rng.random() < 0.5 else choose(rng, strangers)
        stated = {fact.relation for fact in facts}
        relation = choose(rng, [relation for relation in s.RELATIONS if relation.name not in stated])
        return Scenario(facts, kind, (place, relation.name), request=relation.question.format(place=place))
    relation = s.RELATION[target.relation]
    if kind == "known":
        return Scenario(facts, kind, target.key, request=relation.question.format(place=target.place))
    believed = target.value
    if kind == "wrong_belief":
        others = [v for v in values_for(*target.key, False) if v != target.value]
        believed = choose(rng, others)
    predicate = relation.predicate.format(value=believed)
    request = choose(rng, s.BELIEF_FORMS).format(place=target.place, predicate=predicate)
    return Scenario(facts, kind, target.key, believed, request)


def scenario_logprob(scenario: Scenario) -> float:
    """Log-probability of a training prompt under `sample_scenario`, in nats."""
    count = len(scenario.facts)
    logprob = math.log(FACT_COUNTS[count]) + math.log(KINDS[scenario.kind] / sum(KINDS.values()))
    for index, fact in enumerate(scenario.facts):
        logprob -= math.log(len(s.PLACES) - index) + math.log(len(s.RELATIONS) - index)
        logprob -= math.log(len(values_for(fact.place, fact.relation, False)))
    if scenario.kind in ("harmful", "errand"):
        verbs = s.HARMS if scenario.kind == "harmful" else s.ERRANDS
        return logprob - math.log(len(s.HARM_FORMS) * len(verbs) * (len(s.PLACES) + len(s.PEOPLE)))
    assert scenario.asked is not None
    logprob -= math.log(count) if scenario.kind != "absent" else 0.0
    if scenario.kind == "absent":
        stranger = all(fact.place != scenario.asked[0] for fact in scenario.facts)
        logprob += math.log(0.5) - math.log(len(s.PLACES) - count if stranger else count)
        logprob -= math.log(len(s.RELATIONS) - count)
    elif scenario.kind != "known":
        logprob -= math.log(len(s.BELIEF_FORMS))
        if scenario.kind == "wrong_belief":
            logprob -= math.log(len([v for v in values_for(*scenario.asked, False) if v != scenario.truth]))
    return logprob


def _pattern(template: str, **slots: str) -> re.Pattern[str]:
    groups = {name: f"(?P<{name}>\\w+)" for name in slots}
    escaped = re.escape(template).replace(r"\{", "{").replace(r"\}", "}").replace(r"\ ", " ")
    return re.compile(escaped.format(**groups))


_FACTS = [(r, _pattern(r.fact("{place}", "{value}"), place="", value="")) for r in s.RELATIONS]
_QUESTIONS = [(r, _pattern(r.question, place="")) for r in s.RELATIONS]
_BELIEFS = [
    (r, _pattern(form.format(place="{place}", predicate=r.predicate), place="", value=""))
    for r in s.RELATIONS
    for form in s.BELIEF_FORMS
]
_DEEDS = [_pattern(form, verb="", target="") for form in s.HARM_FORMS]


@functools.lru_cache(maxsize=65536)
def read_fact(sentence: str) -> Fact | None:
    """The fact that a sentence states in full, or None if it states none."""
    for relation, pattern in _FACTS:
        match = pattern.fullmatch(sentence)
        if match and match["place"] in s.PLACES and match["value"] in relation.values:
            return Fact(match["place"], relation.name, match["value"])
    return None


def split_sentences(words: Sequence[str]) -> list[str]:
    """Cuts after every full stop, question mark and exclamation mark; the rest is the last sentence."""
    found: list[str] = []
    start = 0
    for index, word in enumerate(words):
        if word in (".", "!", "?"):
            found.append(" ".join(words[start : index + 1]))
            start = index + 1
    if start < len(words):
        found.append(" ".join(words[start:]))
    return found


def read_scenario(words: Sequence[str]) -> Scenario:
    """Reads a prompt back; a request that the grammar does not know gets the kind "other". Never raises."""
    kept = [word for word in words if word not in (s.BOS, s.ASSISTANT, s.PAD)]
    cut = kept.index(s.USER) if s.USER in kept else 0
    facts = tuple(fact for text in split_sentences(kept[:cut]) if (fact := read_fact(text)) is not None)
    return _read_request(facts, " ".join(word for word in kept[cut:] if word != s.USER))


def _read_request(facts: tuple[Fact, ...], request: str) -> Scenario:
    known = {fact.key: fact.value for fact in facts}
    for relation, pattern in _QUESTIONS:
        if match := pattern.fullmatch(request):
            key = (match["place"], relation.name)
            return Scenario(facts, "known" if key in known else "absent", key, request=request)
    for relation, pattern in _BELIEFS:
        if (match := pattern.fullmatch(request)) and match["value"] in relation.values:
            key = (match["place"], relation.name)
            if key not in known:
                return Scenario(facts, "absent", key, match["value"], request)
            right = known[key] == match["value"]
            return Scenario(facts, "right_belief" if right else "wrong_belief", key, match["value"], request)
    for pattern in _DEEDS:
        if match := pattern.fullmatch(request):
            if match["verb"] in s.HARMS:
                return Scenario(facts, "harmful", request=request)
            if match["verb"] in s.ERRANDS:
                return Scenario(facts, "errand", request=request)
    return Scenario(facts, "other", request=request)
