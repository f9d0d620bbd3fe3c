"""Sentences of posts and of their summaries: written with the same tables that they are read with."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from textenv.world import sentences as s
from textenv.world.scenario import Fact, split_sentences

GREETINGS = (
    "hello !",
    "hi there !",
    "good morning !",
    "good afternoon !",
    "good evening !",
    "warm greetings !",
    "dear neighbours !",
    "hello neighbours !",
)
TALK = (
    *s.FILLERS,
    "i slept badly .",
    "my feet hurt .",
    "we danced all night .",
    "it rained again .",
    "my soup was cold .",
    "the neighbours argue .",
    "i lost my hat .",
    "grandmother sends her love .",
)
COMMENTS = (*s.EVASIONS, "read it yourself .", "too long for me .", "nothing new .", "a nice post .")
"""What can be said of any post."""
WRITES = ("writes", ":")
TLDR = ("tldr", ":")
"""Too long; didn't read: the mark between a post and its summary."""

OPENINGS = (
    "",
    "in short ,",
    "in brief ,",
    "briefly ,",
    "all told ,",
    "news :",
    "town news :",
    "local news :",
    "heard today :",
    "summary :",
    "short version :",
    "the gist :",
    "note :",
)
ATTRIBUTIONS = (
    "{author} says :",
    "{author} reports :",
    "{author} notes :",
    "{author} tells :",
    "{author} shares :",
    "{author} claims :",
    "{author} posts :",
    "from {author} :",
    "by {author} :",
    "{author} :",
)
"""Openings that name the author of the post."""
JOINTS = (",", "and", ", and", ", also", "while", "plus", ".")
"""What stands between two facts of a summary; after the last a new sentence begins."""
ARTICLES = ("", "the ")

SHORT_FORMS: dict[str, tuple[str, ...]] = {
    relation: tuple(form.strip() for form in forms.split("/"))
    for relation, forms in {
        "opens": "opens at {value} / opens from {value} / open from {value} / from {value} / starts at {value} / "
        "begins at {value}",
        "closes": "closes on {value} / closed on {value} / shut on {value} / shuts on {value} / not on {value} / "
        "locked on {value}",
        "costs": "costs {value} coins / costs {value} / for {value} coins / for {value} / asks {value} / "
        "takes {value} coins",
        "lies": "lies in {value} / is in {value} / in {value} / found in {value} / stands in {value} / sits in {value}",
        "sells": "sells {value} / has {value} / offers {value} / with {value} / stocks {value} / trades {value}",
        "run": "run by {value} / led by {value} / kept by {value} / headed by {value} / owned by {value} / "
        "under {value}",
        "painted": "painted {value} / is {value} / looks {value} / now {value} / stays {value} / all {value}",
    }.items()
}
"""What a summary says after the name of a place, by relation; all are equally likely."""


class Said(NamedTuple):
    """What one sentence says."""

    facts: tuple[Fact, ...] = ()
    remark: str = ""
    """The sentence without its opening, where it states no fact: small talk, a greeting or a comment."""
    author: str = ""
    """Who is said to have written the post, where anybody is."""


class Post(NamedTuple):
    """What a prompt says."""

    author: str
    facts: tuple[Fact, ...]
    """Everything that is said of a place: with the author's name, these are the key facts."""
    talk: tuple[str, ...]
    """The small talk between them."""
    length: int
    """Words of the post, the author's name before it and the mark behind it left out."""
    known: dict[tuple[str, str], str]
    """Value of each (place, relation) of them."""
    sentences: tuple[str, ...]
    """All of it, the greeting first."""


def words() -> tuple[str, ...]:
    """Every word of prompts and responses but the special ones, in alphabetical order."""
    texts = [*GREETINGS, *TALK, *COMMENTS, *OPENINGS, *JOINTS, *ARTICLES, *s.PREFIXES, *WRITES, *TLDR]
    texts += [form.format(author="") for form in ATTRIBUTIONS]
    texts += [form.format(value="") for forms in SHORT_FORMS.values() for form in forms]
    texts += [relation.fact("", "") for relation in s.RELATIONS]
    found = {word for text in texts for word in text.split()}
    return tuple(sorted(found.union(s.PLACES, s.NAMES, *(relation.values for relation in s.RELATIONS))))


_PREDICATES = {
    form.format(value=value): (relation.name, value)
    for relation in s.RELATIONS
    for form in (relation.predicate, *SHORT_FORMS[relation.name])
    for value in relation.values
}
_AUTHORS = {
    **{opening: "" for opening in (*OPENINGS, *s.PREFIXES) if opening},
    **{form.format(author=name): name for form in ATTRIBUTIONS for name in s.NAMES},
}
_REMARKS = frozenset((*GREETINGS, *TALK, *COMMENTS))
_JOINT = re.compile(" (?:{}) ".format("|".join(sorted(map(re.escape, JOINTS[:-1]), key=len, reverse=True))))
_PLACES = frozenset(s.PLACES)


@functools.lru_cache(maxsize=65536)
def read_sentence(sentence: str) -> Said | None:
    """What a sentence of a post or a summary says, or None if it is no sentence of the language."""
    author = ""
    tokens = sentence.split(" ", 3)
    for size in (2, 3):
        if (opening := " ".join(tokens[:size])) in _AUTHORS:
            author = _AUTHORS[opening]
            sentence = sentence[len(opening) + 1 :]
            break
    if sentence in _REMARKS:
        return Said(remark=sentence, author=author)
    if not sentence.endswith(" ."):
        return None
    facts = [_read_clause(clause) for clause in _JOINT.split(sentence.removesuffix(" ."))]
    known = tuple(fact for fact in facts if fact is not None)
    return Said(known, author=author) if len(known) == len(facts) else None


@functools.lru_cache(maxsize=65536)
def _read_clause(clause: str) -> Fact | None:
    place, _, predicate = clause.removeprefix("the ").partition(" ")
    if place not in _PLACES or predicate not in _PREDICATES:
        return None
    return Fact(place, *_PREDICATES[predicate])


@functools.lru_cache(maxsize=65536)
def read_post(prompt: tuple[str, ...]) -> Post:
    """Reads a prompt back, whatever it holds. Never raises."""
    kept = [word for word in prompt if word not in s.SPECIAL]
    author = ""
    if len(kept) > 2 and tuple(kept[1:3]) == WRITES:
        author, kept = kept[0], kept[3:]
    if tuple(kept[-2:]) == TLDR:
        kept = kept[:-2]
    sentences = tuple(split_sentences(kept))
    said = [read for sentence in sentences if (read := read_sentence(sentence)) is not None]
    facts = tuple(fact for each in said for fact in each.facts)
    return Post(
        author=author,
        facts=facts,
        talk=tuple(each.remark for each in said if each.remark in TALK),
        length=len(kept),
        known={fact.key: fact.value for fact in facts},
        sentences=sentences,
    )


def post_words(author: str, sentences: Sequence[str]) -> list[str]:
    """A prompt: who writes, the sentences, and the mark that asks for a summary."""
    return [s.BOS, author, *WRITES, *" ".join(sentences).split(), *TLDR, s.ASSISTANT]
