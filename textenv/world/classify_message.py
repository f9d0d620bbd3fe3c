"""What a prompt of Classify says: labels to choose from, and a message. Written and read back here.

Every message has a topic and an intent, each told by a word or two. The labels that are offered, each
with an example of a word that tells it, are all of one kind, so they say which of the two is asked for.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from textenv.tasks.base import Split
from textenv.world import classify_sentences as c
from textenv.world import sentences as s
from textenv.world.scenario import choose
from textenv.world.splits import is_held_out, split_of


@dataclass(frozen=True)
class Message:
    """The meaning of one prompt."""

    offered: tuple[str, ...]
    """The labels to choose from, in the prompt's order."""
    told: Mapping[str, str]
    """The label that each word or pair of words of the message tells, longer ones last."""

    @property
    def right(self) -> frozenset[str]:
        """The offered labels that the message tells: exactly one in the task's own prompts."""
        return frozenset(self.offered) & frozenset(self.told.values())


def sample_prompt(rng: np.random.Generator, split: Split) -> list[str]:
    """Draws a prompt of the split; those of train, validation and test never coincide.

    Held-out ones have a topic word and an intent word that never occur together in a training text.
    """
    while True:
        prompt = _sample_prompt(rng, held_out=split == "heldout")
        if split in ("heldout", split_of(prompt)):
            return prompt


def _sample_prompt(rng: np.random.Generator, *, held_out: bool) -> list[str]:
    while True:
        noun = choose(rng, c.NOUNS)
        intent = choose(rng, c.INTENTS)
        kinds = ((c.ADJECTIVES, c.ADJECTIVE_FORMS), (c.VERBS, c.VERB_FORMS), (c.ASKING, c.ASKING_FORMS))
        cues, forms = next(kind for kind in kinds if intent in kind[0])
        degree = choose(rng, c.DEGREES) if cues is c.ADJECTIVES else ""
        cue = choose(rng, cues[c.TEMPTING[intent] if degree in c.NEGATORS else intent])
        if is_held_out(noun, cue) is held_out:
            break
    asked, kind = (c.TELLING[noun], tuple(c.TOPICS)) if rng.random() < 0.5 else (intent, c.INTENTS)
    # Two whole pairs of labels, so that which ones are offered does not tell the right one.
    other = choose(rng, [label for label in kind if label not in (asked, c.TEMPTING[asked])])
    offered = (asked, c.TEMPTING[asked], other, c.TEMPTING[other])
    labels = []
    for label in (offered[i] for i in rng.permutation(len(offered))):
        examples = [word for word in c.EXAMPLES[label] if not (is_held_out(word, cue) or is_held_out(noun, word))]
        labels.append(f"{label} like {choose(rng, examples)}")
    text = f"{choose(rng, c.ASIDES)} {choose(rng, forms).format(noun=noun, degree=degree, cue=cue)}"
    return [s.BOS, *f"labels : {' , '.join(labels)} .".split(), s.USER, *text.split(), s.ASSISTANT]


def read_message(prompt: Sequence[str]) -> Message:
    """Reads any prompt; never raises."""
    return _read_message(tuple(prompt))


@functools.lru_cache(maxsize=65536)
def _read_message(prompt: tuple[str, ...]) -> Message:
    cut = prompt.index(s.USER) if s.USER in prompt else 0
    text = prompt[cut:]
    told = {word: c.TELLING[word] for word in text if word in c.TELLING}
    for degree, word in itertools.pairwise(text):
        if degree in c.NEGATORS and word in c.DEGREED:
            # Without its negator the word would say what the message does not.
            told.pop(word, None)
            told[f"{degree} {word}"] = c.TEMPTING[c.TELLING[word]]
        elif degree in c.DEGREES and word in c.DEGREED:
            told[f"{degree} {word}"] = c.TELLING[word]
    return Message(tuple(dict.fromkeys(word for word in prompt[:cut] if word in c.LABELS)), told)
