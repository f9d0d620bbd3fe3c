"""Summaries: a townsperson's post with key facts among small talk, and what several writers make of it.

A summary is an opening, a body and a tail: `in short , museum from nine and the bakery has bread .`
What it does in each depends on a hidden writer, the words that do it do not. So every text has one
derivation, and its exact probability is a sum over the few writers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from textenv.tasks.base import Split
from textenv.world import sentences as s
from textenv.world.language import Written
from textenv.world.scenario import Fact, choose, choose_weighted, split_sentences, values_for
from textenv.world.splits import split_of
from textenv.world.summary_sentences import (
    ARTICLES,
    ATTRIBUTIONS,
    COMMENTS,
    GREETINGS,
    JOINTS,
    OPENINGS,
    SHORT_FORMS,
    TALK,
    Post,
    post_words,
    read_post,
    read_sentence,
    words,
)

__all__ = ["Attributes", "Writer", "read_response", "sample_prompt", "sample_response", "words"]

SHORT_FROM = 0.3
"""Length of a summary, as a share of the post, from which down it is as short as can be asked."""
TALK_COUNTS = {2: 2, 3: 1}
"""Sentences of small talk by facts: a post has four of both together."""

Weights = dict[str, float]


class Attributes(NamedTuple):
    """What the gold score is made of, each in [0, 1]."""

    covered: float
    """Share of the key facts (the author, and what is said of each place) that are told and not contradicted."""
    faithful: float
    """Halved by each fact, name or small talk that the post does not have; half where nothing is claimed."""
    short: float
    """From 1 at three tenths of the post to 0 at its length; 0 where nothing is told of any place."""
    fluent: float
    """Share of the words in proper sentences that repeat nothing; halved without an end token."""


@dataclass(frozen=True)
class Writer:
    """A kind of writer: how likely each choice is (weights, normalised when used)."""

    opening: Weights
    """plain, author (who wrote the post), stranger (somebody else is named)."""
    body: Weights
    """facts, lead (the beginning of the post, word by word), talk, comment."""
    complete: float
    """Probability of stating all facts; else fewer, counted from the first, all numbers equally likely."""
    tail: Weights
    """none, talk (of the post), invention (talk that the post does not have), comment, again (the last fact)."""


WRITERS: dict[str, Writer] = {
    "editor": Writer(
        opening={"plain": 0.73, "author": 0.25, "stranger": 0.02},
        body={"facts": 0.96, "talk": 0.02, "comment": 0.02},
        complete=0.85,
        tail={"none": 0.8, "talk": 0.08, "invention": 0.04, "comment": 0.04, "again": 0.04},
    ),
    "skimmer": Writer(
        opening={"plain": 0.8, "author": 0.15, "stranger": 0.05},
        body={"facts": 0.85, "comment": 0.15},
        complete=0.1,
        tail={"none": 0.6, "talk": 0.1, "invention": 0.05, "comment": 0.2, "again": 0.05},
    ),
    "inventor": Writer(
        opening={"plain": 0.3, "author": 0.1, "stranger": 0.6},
        body={"facts": 0.9, "talk": 0.1},
        complete=0.4,
        tail={"none": 0.3, "talk": 0.05, "invention": 0.55, "comment": 0.05, "again": 0.05},
    ),
    "copyist": Writer(
        opening={"plain": 0.9, "author": 0.1},
        body={"lead": 0.85, "facts": 0.1, "talk": 0.05},
        complete=0.3,
        tail={"none": 0.5, "talk": 0.2, "comment": 0.1, "again": 0.2},
    ),
    "gossip": Writer(
        opening={"plain": 0.5, "author": 0.35, "stranger": 0.15},
        body={"facts": 0.25, "talk": 0.55, "comment": 0.2},
        complete=0.05,
        tail={"none": 0.2, "talk": 0.4, "invention": 0.2, "comment": 0.1, "again": 0.1},
    ),
}
MIXTURE: Weights = {"editor": 0.24, "skimmer": 0.22, "inventor": 0.2, "copyist": 0.16, "gossip": 0.18}
ACCURACY: Weights = {"plain": 0.75, "author": 0.88, "stranger": 0.3}
"""Probability of each stated fact to be true, by the opening: who has the name wrong has more wrong."""


class Slots(NamedTuple):
    """What was drawn, by name; the writer is hidden."""

    opening: str
    body: str
    stated: int = 0
    """Facts that are stated, true or false."""
    tail: str = "none"


def sample_prompt(rng: np.random.Generator, split: Split) -> list[str]:
    """Draws a post of the split, about different places and of different relations.

    Prompts of train, validation and test never coincide. All facts of a held-out one are combinations
    of place and value that no training text has.
    """
    while True:
        prompt = _sample_post(rng, held_out=split == "heldout")
        if split in ("heldout", split_of(prompt)):
            return prompt


def _sample_post(rng: np.random.Generator, *, held_out: bool) -> list[str]:
    count = choose(rng, tuple(TALK_COUNTS))
    facts: dict[str, Fact] = {}
    while len(facts) < count:
        place, relation = choose(rng, s.PLACES), choose(rng, s.RELATIONS).name
        values = values_for(place, relation, held_out)
        if values and relation not in facts and all(place != fact.place for fact in facts.values()):
            facts[relation] = Fact(place, relation, choose(rng, values))
    parts = [f"{choose(rng, s.PREFIXES)} {fact.sentence}".strip() for fact in facts.values()]
    parts += [TALK[i] for i in rng.permutation(len(TALK))[: TALK_COUNTS[count]]]
    shuffled = [parts[i] for i in rng.permutation(len(parts))]
    return post_words(choose(rng, s.NAMES), (choose(rng, GREETINGS), *shuffled))


def sample_response(rng: np.random.Generator, prompt: Sequence[str]) -> Written:
    """Writes a summary of a post that `sample_prompt` drew, as a writer drawn from the mixture."""
    post = read_post(tuple(prompt))
    writer = WRITERS[choose_weighted(rng, MIXTURE)]
    body = choose_weighted(rng, writer.body)
    if body == "lead":
        count = 1 + int(rng.integers(2))
        text = " ".join(post.sentences[: 1 + count])
        return _written(text, math.log(1 / 2) + _slots_logprob(post, Slots("none", "lead")))
    opening = choose_weighted(rng, writer.opening)
    start, logprob = _write_opening(rng, post, opening)
    count = 0
    last = ""
    if body == "facts":
        every = rng.random() < writer.complete
        count = len(post.facts) if every else 1 + int(rng.integers(len(post.facts) - 1))
        middle, last, body_logprob = _write_facts(rng, post.facts[:count], ACCURACY[opening])
    else:
        middle, body_logprob = _write_remark(rng, post, body)
    tail = choose_weighted(rng, _tails(writer, post, body, count))
    end, tail_logprob = (last, 0.0) if tail == "again" else _write_remark(rng, post, tail)
    slots = Slots(opening, body, count, tail)
    return _written(f"{start} {middle} {end}", logprob + body_logprob + tail_logprob + _slots_logprob(post, slots))


def _written(text: str, logprob: float) -> Written:
    return Written([*text.split(), s.EOS], logprob)


def _slots_logprob(post: Post, slots: Slots) -> float:
    """Log-probability of what was drawn, summed over the hidden writers."""
    total = 0.0
    for name in MIXTURE:
        writer = WRITERS[name]
        share = _share(MIXTURE, name) * _share(writer.body, slots.body)
        if slots.body != "lead":
            share *= _share(writer.opening, slots.opening)
            share *= _share(_tails(writer, post, slots.body, slots.stated), slots.tail)
        if slots.body == "facts":
            every = slots.stated == len(post.facts)
            share *= writer.complete if every else (1 - writer.complete) / (len(post.facts) - 1)
        total += share
    return math.log(total)


def _share(weights: Weights, name: str) -> float:
    return weights.get(name, 0.0) / sum(weights.values())


def _tails(writer: Writer, post: Post, body: str, stated: int) -> Weights:
    """Nothing more is said after all facts, and only a fact is said again."""
    if stated == len(post.facts):
        return {"none": 1.0}
    return {kind: weight for kind, weight in writer.tail.items() if kind != "again" or body == "facts"}


def _write_opening(rng: np.random.Generator, post: Post, kind: str) -> tuple[str, float]:
    """An opening of the kind, and its log-probability given the kind."""
    if kind == "plain":
        return choose(rng, OPENINGS), -math.log(len(OPENINGS))
    form, logprob = choose(rng, ATTRIBUTIONS), -math.log(len(ATTRIBUTIONS))
    if kind == "author":
        return form.format(author=post.author), logprob
    strangers = [name for name in s.NAMES if name != post.author]
    return form.format(author=choose(rng, strangers)), logprob - math.log(len(strangers))


def _write_remark(rng: np.random.Generator, post: Post, kind: str) -> tuple[str, float]:
    """A sentence that states no key fact, and its log-probability given the kind."""
    options = {
        "none": ("",),
        "talk": post.talk,
        "invention": tuple(sentence for sentence in TALK if sentence not in post.talk),
        "comment": COMMENTS,
    }[kind]
    return choose(rng, options), -math.log(len(options))


def _write_facts(rng: np.random.Generator, facts: Sequence[Fact], accuracy: float) -> tuple[str, str, float]:
    """The facts in their order, the last of them as a sentence, and the log-probability of the words."""
    logprob = 0.0
    text = clause = ""
    for index, fact in enumerate(facts):
        value = fact.value
        if rng.random() < accuracy:
            logprob += math.log(accuracy)
        else:
            false = [other for other in values_for(fact.place, fact.relation, False) if other != fact.value]
            value = choose(rng, false)
            logprob += math.log((1 - accuracy) / len(false))
        forms = SHORT_FORMS[fact.relation]
        clause = f"{choose(rng, ARTICLES)}{fact.place} {choose(rng, forms).format(value=value)}"
        logprob -= math.log(len(ARTICLES) * len(forms))
        if index:
            text += f" {choose(rng, JOINTS)} "
            logprob -= math.log(len(JOINTS))
        text += clause
    return f"{text} .", f"{clause} .", logprob


def read_response(prompt: Sequence[str], response: Sequence[str]) -> Attributes:
    """The attributes of a response to a prompt; never raises.

    Args:
        prompt: the words of the prompt.
        response: the words of the response; everything from the first end token on is ignored.
    """
    post = read_post(tuple(prompt))
    ended = s.EOS in response
    text = response[: response.index(s.EOS)] if ended else response
    facts: set[Fact] = set()
    remarks: set[str] = set()
    authors: set[str] = set()
    good_words = 0
    for sentence in split_sentences(text):
        said = read_sentence(sentence)
        if said is None:
            continue
        # A sentence that says again what was said before is a repetition, in whatever words.
        if len(facts.union(said.facts)) == len(facts) + len(said.facts) and said.remark not in remarks:
            good_words += sentence.count(" ") + 1
        facts.update(said.facts)
        remarks.update(filter(None, (said.remark,)))
        authors.update(filter(None, (said.author,)))
    wrong = {fact for fact in facts if post.known.get(fact.key) != fact.value}
    told = len({fact.key for fact in facts} - {fact.key for fact in wrong})
    talk = remarks.intersection(TALK)
    invented = len(wrong) + len(talk.difference(post.talk)) + len(authors - {post.author})
    keys = len(post.known) + bool(post.author)
    return Attributes(
        covered=(told + (authors == {post.author})) / keys if keys else 1.0,
        faithful=0.5**invented if facts or talk or authors else 0.5,
        short=min(1.0, max(0.0, (1 - len(text) / post.length) / (1 - SHORT_FROM))) if told else 0.0,
        fluent=(1.0 if ended else 0.5) * good_words / len(text) if text else 0.0,
    )
