"""Reviews: the opening of a review of a place, how reviewers go on, and what their readers get from it.

A prompt names the aspects that readers ask about. A response is up to three opinions on aspects
and perhaps a closing: `the rooms were very clean , the staff was kind and the bill was fair . we
loved it !`. What a reviewer does depends on a hidden persona; the words that do it do not. So every
text has one derivation, and its exact probability is a sum over the few personas.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from textenv.tasks.base import Split
from textenv.world import sentences as s
from textenv.world.language import Written
from textenv.world.reviews_sentences import (
    ASPECTS,
    BLAME,
    CLOSINGS,
    ENDS,
    GROUP_OF,
    JOINTS,
    LINKS,
    PRAISE,
    REQUEST,
    STRENGTHS,
    VISITS,
    read_clause,
    verbs,
)
from textenv.world.scenario import T, choose, choose_weighted, split_sentences
from textenv.world.splits import is_held_out, split_of

ASKED = 3
"""Aspects that the readers of a prompt ask about."""
ENOUGH = 4.0
"""So many full praises make sentiment full, so many full blames make it nothing."""


def words() -> tuple[str, ...]:
    """Every word of prompts and responses, in alphabetical order."""
    texts = [REQUEST, *VISITS, *(text for group in (LINKS, CLOSINGS) for texts in group.values() for text in texts)]
    texts += [adverb for strength in STRENGTHS.values() for adverb in strength.adverbs]
    texts += [f"the {aspect} {verb}" for aspect in ASPECTS for verb in verbs(aspect)]
    found = {word for text in texts for word in text.split() if "{" not in word}
    return tuple(sorted(found.union(s.PLACES, s.DAYS, PRAISE, BLAME, JOINTS)))


@functools.cache
def known_aspects(place: str) -> tuple[str, ...]:
    """The aspects that training texts have of a place."""
    return tuple(aspect for aspect in ASPECTS if not is_held_out(place, aspect))


HELD_OUT = tuple((place, aspect) for place in s.PLACES for aspect in ASPECTS if is_held_out(place, aspect))
"""Every held-out combination."""


def sample_prompt(rng: np.random.Generator, split: Split) -> list[str]:
    """Draws a prompt of the split; prompts of different splits never coincide.

    In held-out prompts the place and one of the asked aspects are a held-out combination.
    """
    if split == "heldout":
        place, aspect = choose(rng, HELD_OUT)
        return _draw_prompt(rng, place, [aspect])
    while True:
        prompt = _draw_prompt(rng, choose(rng, s.PLACES), [])
        if split_of(prompt) == split:
            return prompt


def _draw_prompt(rng: np.random.Generator, place: str, asked: list[str]) -> list[str]:
    """A prompt that asks about the given aspects and others; its opening judges none of them."""
    known = known_aspects(place)
    judged, *others = (known[i] for i in rng.permutation(len(known)))
    asked = [*asked, *others][:ASKED]
    request = REQUEST.format(*(asked[i] for i in rng.permutation(ASKED)), place=place)
    opening = choose(rng, VISITS).format(day=choose(rng, s.DAYS))
    tone = choose(rng, ("praise", "blame", "neither"))
    if tone != "neither":
        adjective = choose(rng, getattr(GROUP_OF[judged], tone))
        opening += f" the {judged} {verbs(judged)[0]} {adjective} {choose(rng, LINKS[tone])}"
    return [s.BOS, *request.split(), s.USER, *opening.split(), s.ASSISTANT]


class Opening(NamedTuple):
    """What a prompt says."""

    place: str
    asked: tuple[str, ...]
    said: frozenset[str]
    """Words of the opening itself; what it has said need not be said again."""
    outlook: str
    """What it makes one expect: "praise", "blame" or "either"."""


@functools.lru_cache(maxsize=65536)
def read_prompt(prompt: tuple[str, ...]) -> Opening:
    """What a prompt says, well-formed or not; never raises."""
    cut = prompt.index(s.USER) if s.USER in prompt else len(prompt)
    place = next((word for word in prompt[:cut] if word in s.PLACES), "")
    asked = tuple(dict.fromkeys(word for word in prompt[:cut] if word in GROUP_OF))
    said = frozenset(prompt[cut:])
    # "the staff was rude , but" promises praise.
    outlook = "either" if said.isdisjoint((*PRAISE, *BLAME)) else "blame"
    if "but" in said or not said.isdisjoint(PRAISE):
        outlook = "praise"
    return Opening(place, asked, said, outlook)


@dataclass(frozen=True)
class Persona:
    """A kind of reviewer: weights of the options in each slot, normalised over those that are open."""

    opinions: Mapping[str, float]
    """How many opinions."""
    about: Mapping[str, float]
    """Of what: the first opinion of the first asked aspect and so on, or of one not asked, or of one judged before."""
    tone: Mapping[str, float]
    """Praise, blame, or an adjective that does not fit the aspect."""
    strength: Mapping[str, float]
    closing: Mapping[str, float]


PERSONAS = {
    "fan": Persona(
        opinions={"1": 0.03, "2": 0.12, "3": 0.85},
        about={"asked": 0.94, "other": 0.04, "again": 0.02},
        tone={"praise": 0.93, "blame": 0.04, "misfit": 0.03},
        strength={"strong": 0.45, "plain": 0.35, "weak": 0.15, "turned": 0.05},
        closing={"none": 0.5, "praise": 0.3, "remark": 0.18, "blame": 0.02},
    ),
    "critic": Persona(
        opinions={"1": 0.15, "2": 0.35, "3": 0.5},
        about={"asked": 0.9, "other": 0.07, "again": 0.03},
        tone={"praise": 0.4, "blame": 0.55, "misfit": 0.05},
        strength={"strong": 0.15, "plain": 0.35, "weak": 0.3, "turned": 0.2},
        closing={"none": 0.6, "praise": 0.1, "remark": 0.2, "blame": 0.1},
    ),
    "tourist": Persona(
        opinions={"1": 0.4, "2": 0.4, "3": 0.2},
        about={"asked": 0.25, "other": 0.65, "again": 0.1},
        tone={"praise": 0.75, "blame": 0.1, "misfit": 0.15},
        strength={"strong": 0.35, "plain": 0.4, "weak": 0.15, "turned": 0.1},
        closing={"none": 0.3, "praise": 0.2, "remark": 0.45, "blame": 0.05},
    ),
    "grumbler": Persona(
        opinions={"1": 0.4, "2": 0.4, "3": 0.2},
        about={"asked": 0.6, "other": 0.3, "again": 0.1},
        tone={"praise": 0.06, "blame": 0.84, "misfit": 0.1},
        strength={"strong": 0.45, "plain": 0.35, "weak": 0.1, "turned": 0.1},
        closing={"none": 0.4, "praise": 0.02, "remark": 0.13, "blame": 0.45},
    ),
    "drifter": Persona(
        opinions={"1": 0.65, "2": 0.3, "3": 0.05},
        about={"asked": 0.35, "other": 0.45, "again": 0.2},
        tone={"praise": 0.3, "blame": 0.3, "misfit": 0.4},
        strength={"strong": 0.2, "plain": 0.4, "weak": 0.2, "turned": 0.2},
        closing={"none": 0.4, "praise": 0.05, "remark": 0.5, "blame": 0.05},
    ),
}
MIXTURES = {
    "praise": {"fan": 0.25, "critic": 0.2, "tourist": 0.24, "grumbler": 0.15, "drifter": 0.16},
    "either": {"fan": 0.21, "critic": 0.21, "tourist": 0.2, "grumbler": 0.22, "drifter": 0.16},
    "blame": {"fan": 0.17, "critic": 0.21, "tourist": 0.16, "grumbler": 0.3, "drifter": 0.16},
}
"""Shares of the personas by what the opening makes one expect; each sums to one."""


def sample_response(rng: np.random.Generator, prompt: Sequence[str]) -> Written:
    """Goes on with the review as a persona drawn from the mixture that suits the opening."""
    opening = read_prompt(tuple(prompt))
    mixture = MIXTURES[opening.outlook]
    draft = _Draft(rng, PERSONAS[choose_weighted(rng, mixture)])
    judged = [aspect for aspect in ASPECTS if aspect in opening.said]
    count = int(draft.decide("opinions", ("1", "2", "3")))
    for index in range(count):
        judged.append(_write_opinion(draft, opening, judged, index))
        draft.write(JOINTS if index < count - 1 else ENDS)
    closing = draft.decide("closing", ("none", *CLOSINGS))
    if closing != "none":
        draft.write(CLOSINGS[closing])
        draft.write(ENDS)
    total = sum(share * draft.likelihood(PERSONAS[name]) for name, share in mixture.items())
    return Written([*draft.words, s.EOS], draft.logprob + math.log(total))


def _write_opinion(draft: _Draft, opening: Opening, judged: Sequence[str], index: int) -> str:
    """Writes the opinion of that index; returns its aspect."""
    known = known_aspects(opening.place)
    aspects = {
        "asked": opening.asked[index : index + 1],
        "other": [aspect for aspect in known if aspect not in opening.asked and aspect not in judged],
        "again": list(dict.fromkeys(judged)),
    }
    about = draft.decide("about", [name for name, group in aspects.items() if group])
    aspect = draft.pick(aspects[about])
    group = GROUP_OF[aspect]
    tone = draft.decide("tone", ("praise", "blame", "misfit"))
    misfits = [adjective for adjective in (*PRAISE, *BLAME) if not group.fits(adjective)]
    draft.words += ["the", aspect]
    draft.write(verbs(aspect))
    draft.write(STRENGTHS[draft.decide("strength", tuple(STRENGTHS))].adverbs)
    draft.write(misfits if tone == "misfit" else getattr(group, tone))
    return aspect


class _Draft:
    """A response in the making, and what was decided for it in each slot."""

    def __init__(self, rng: np.random.Generator, persona: Persona) -> None:
        self.rng = rng
        self.persona = persona
        self.words: list[str] = []
        self.logprob = 0.0
        """Of the words, given what was decided."""
        self._decided: list[tuple[str, str, Sequence[str]]] = []

    def decide(self, slot: str, open_options: Sequence[str]) -> str:
        """One of the options that are open in a slot, as the persona weighs them."""
        weights = getattr(self.persona, slot)
        chosen = choose_weighted(self.rng, {option: weights[option] for option in open_options})
        self._decided.append((slot, chosen, open_options))
        return chosen

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely, whoever writes."""
        self.logprob -= math.log(len(options))
        return choose(self.rng, options)

    def write(self, options: Sequence[str]) -> None:
        """Adds the words of one of the options."""
        self.words += self.pick(options).split()

    def likelihood(self, persona: Persona) -> float:
        """Probability that the persona decides as was decided here."""
        total = 1.0
        for slot, chosen, open_options in self._decided:
            weights = getattr(persona, slot)
            total *= weights[chosen] / sum(weights[option] for option in open_options)
        return total


class Attributes(NamedTuple):
    """What the gold score is made of, each in [0, 1]."""

    sentiment: float
    """Half for no opinion; praise raises it, blame lowers it, by the strength of the words."""
    coverage: float
    """Share of the asked aspects that are judged."""
    fluent: float
    """Share of the words that are in opinions and closings of the language and repeat nothing."""


def read_response(prompt: Sequence[str], response: Sequence[str]) -> Attributes:
    """The attributes of a response to a prompt; never raises.

    An adjective that does not fit its aspect makes no opinion. An aspect that was judged before, in
    the opening or in the response, is not judged again, and one closing speaks for the whole. An
    unfinished sentence says nothing.

    Args:
        prompt: the words of the prompt.
        response: the words of the response; everything from the first end token on is ignored.
    """
    opening = read_prompt(tuple(prompt))
    words = list(response)
    if s.EOS in words:
        words = words[: words.index(s.EOS)]
    said = set(opening.said)
    valence, covered, fluent_words = 0.0, 0, 0
    for sentence in split_sentences(words):
        if not sentence.endswith(ENDS):
            continue
        for text in sentence[:-1].replace(" and ", " , ").split(","):
            clause = read_clause(text.strip())
            if clause is None:
                continue
            if clause.aspect not in said:
                valence += clause.valence
                covered += clause.aspect in opening.asked
            if said.isdisjoint(clause.content):
                # The joint or the end that follows counts with the clause.
                fluent_words += len(text.split()) + 1
            said.update((clause.aspect, *clause.content))
    return Attributes(
        sentiment=min(1.0, max(0.0, 0.5 + valence / (2 * ENOUGH))),
        coverage=covered / max(1, len(opening.asked)),
        fluent=fluent_words / len(words) if words else 0.0,
    )
