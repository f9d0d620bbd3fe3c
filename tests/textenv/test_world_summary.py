"""What writers make of a post is read back as meant, its probability is exact, and whatever is written is read."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv.world import sentences as s
from textenv.world import summary
from textenv.world import summary_sentences as tables
from textenv.world.scenario import Fact, is_held_out, split_sentences
from textenv.world.summary import (
    MIXTURE,
    WRITERS,
    Attributes,
    Slots,
    read_response,
    sample_prompt,
    sample_response,
)
from textenv.world.summary_sentences import Said, post_words, read_post, read_sentence

SEEDS = st.integers(0, 2**32 - 1)
SPLITS = ("train", "validation", "test", "heldout")
POST = post_words(
    "anna",
    [
        "hello neighbours !",
        "well , the museum opens at nine .",
        "time flies fast .",
        "the bakery sells bread .",
        "the zoo is run by boris .",
    ],
)
"""Three facts and the author are the key facts; between the name and the mark there are 27 words."""
BEST = "anna says : museum from nine , bakery has bread , zoo under boris ."


def read(text: str, end: str = s.EOS) -> Attributes:
    return read_response(POST, [*text.split(), *end.split()])


def short(words: int) -> float:
    """Shortness of so many words on the 27 of the post: full at 0.3 of them, none at all of them."""
    return min(1, (1 - words / 27) / 0.7)


def test_the_words_are_few_and_sorted_and_those_of_every_text():
    words = summary.words()
    assert list(words) == sorted(set(words))
    assert len(set(words) - set(s.words())) <= 120
    assert not set(words) & set(s.SPECIAL)
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    for _ in range(3000):
        prompt = sample_prompt(rng, "train")
        seen.update(prompt, sample_response(rng, prompt).words)
    assert seen == {*words, s.BOS, s.ASSISTANT, s.EOS}


def test_no_two_forms_of_a_relation_or_of_two_relations_are_the_same():
    forms = [
        form.format(value=value)
        for relation in s.RELATIONS
        for form in {relation.predicate, *tables.SHORT_FORMS[relation.name]}
        for value in relation.values
    ]
    assert len(set(forms)) == len(forms)
    remarks = [*tables.GREETINGS, *tables.TALK, *tables.COMMENTS]
    assert len(set(remarks)) == len(remarks)
    openings = [*tables.OPENINGS, *s.PREFIXES[1:]]
    assert len(set(openings)) == len(openings)


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=150, deadline=None)
def test_prompts_are_what_they_should_be(seed, split):
    prompt = sample_prompt(np.random.default_rng(seed), split)
    assert len(prompt) <= 40
    assert prompt[0] == s.BOS
    assert prompt[-3:] == ["tldr", ":", s.ASSISTANT]
    post = read_post(tuple(prompt))
    assert post.author in s.NAMES
    assert (len(post.facts), len(post.talk)) in {(2, 2), (3, 1)}
    assert len({fact.place for fact in post.facts}) == len({fact.relation for fact in post.facts}) == len(post.facts)
    assert {is_held_out(fact) for fact in post.facts} == {split == "heldout"}
    assert post.sentences[0] in tables.GREETINGS
    assert post_words(post.author, post.sentences) == prompt
    assert post.length == len(prompt) - len(("<bos>", post.author, "writes", ":", "tldr", ":", "<assistant>"))


def test_splits_never_share_a_prompt_and_none_comes_twice():
    rng = np.random.default_rng(0)
    prompts = {split: {tuple(sample_prompt(rng, split)) for _ in range(500)} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other]
    assert all(len(found) == 500 for found in prompts.values())


def test_no_training_text_states_a_held_out_fact():
    rng = np.random.default_rng(0)
    for _ in range(1500):
        prompt = sample_prompt(rng, "train")
        stated = [
            *read_post(tuple(prompt)).facts,
            *(
                fact
                for sentence in split_sentences(sample_response(rng, prompt).words[:-1])
                if (said := read_sentence(sentence)) is not None
                for fact in said.facts
            ),
        ]
        assert not any(is_held_out(fact) for fact in stated)


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("the museum opens at nine .", Said((Fact("museum", "opens", "nine"),))),
        ("well , museum open from nine .", Said((Fact("museum", "opens", "nine"),))),
        ("anna : zoo for ten coins .", None),
        (
            "from anna : the zoo for twenty coins , and barn is red .",
            Said((Fact("zoo", "costs", "twenty"), Fact("barn", "painted", "red")), author="anna"),
        ),
        ("in short , time flies fast .", Said(remark="time flies fast .")),
        ("anna : nothing new .", Said(remark="nothing new .", author="anna")),
        ("hello !", Said(remark="hello !")),
        ("museum opens at nine", None),
        ("museum opens at nine !", None),
        ("museum opens at monday .", None),
        ("museum opens at nine and .", None),
        ("museum opens at nine bakery has bread .", None),
        ("the the museum opens at nine .", None),
        ("in short , in short , museum opens at nine .", None),
        ("in short ,", None),
        (".", None),
    ],
)
def test_what_a_sentence_says(sentence, said):
    assert read_sentence(sentence) == said


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        # 15 words of 27.
        (BEST, (1, 1, short(15), 1)),
        ("the bakery offers bread while museum opens at nine . zoo kept by boris .", (3 / 4, 1, short(15), 1)),
        # One key fact of four, and short enough at 4 words.
        ("museum from nine .", (1 / 4, 1, 1, 1)),
        ("anna : museum from nine .", (2 / 4, 1, 1, 1)),
        # Invented: a value, a place, a name, small talk; each halves.
        ("museum from ten .", (0, 1 / 2, 0, 1)),
        ("museum from nine , farm is red .", (1 / 4, 1 / 2, 1, 1)),
        ("clara : museum from nine .", (1 / 4, 1 / 2, 1, 1)),
        ("clara : museum from ten . it rained again .", (0, 1 / 8, 0, 1)),
        # Small talk of the post is not invented, and comments claim nothing.
        ("museum from nine . time flies fast .", (1 / 4, 1, 1, 1)),
        ("it depends . read it yourself .", (0, 1 / 2, 0, 1)),
        # Whoever names two values, or two authors, has said neither.
        ("museum from nine . museum from ten .", (0, 1 / 2, 0, 1)),
        ("anna : nothing new . clara : museum from nine .", (1 / 4, 1 / 2, short(11), 1)),
        # Said again, in the same words or in others; not fluent are the 4 last of 8, the 6 last of 10, all 8, half.
        ("museum from nine . museum from nine .", (1 / 4, 1, 1, 4 / 8)),
        ("museum from nine . the museum opens at nine .", (1 / 4, 1, short(10), 4 / 10)),
        ("museum from nine , museum from nine .", (1 / 4, 1, 1, 0)),
        ("it depends . it depends .", (0, 1 / 2, 0, 1 / 2)),
        # No sentences: nothing is read in them.
        ("museum nine bakery bread", (0, 1 / 2, 0, 0)),
        ("museum from nine . bakery bread", (1 / 4, 1, 1, 4 / 6)),
        ("", (0, 1 / 2, 0, 0)),
        # The facts of the post, word by word: 18 words.
        (
            "the museum opens at nine . the bakery sells bread . the zoo is run by boris .",
            (3 / 4, 1, short(18), 1),
        ),
    ],
)
def test_attributes_by_hand(text, attributes):
    assert read(text) == pytest.approx(attributes)


def test_without_an_end_half_the_fluency_is_lost_and_after_it_nothing_is_read():
    assert read(BEST, end="") == pytest.approx(read(BEST)._replace(fluent=0.5))
    assert read(BEST, end=f"{s.EOS} museum from ten . {s.EOS}") == read(BEST)
    assert read_response(POST, [s.EOS, *BEST.split(), s.EOS]) == read("")


def test_the_post_word_by_word_is_no_summary():
    words = POST[4:-3]
    assert read_response(POST, [*words, s.EOS]).short == 0
    cut = read_response(POST, words[:24])
    assert cut.fluent < 0.5
    assert cut.covered < 1


def test_a_post_without_author_or_facts_or_words_is_read_too():
    nobody = [s.BOS, *"the museum opens at nine . tldr :".split(), s.ASSISTANT]
    assert read_response(nobody, "museum from nine .".split()).covered == 1
    assert read_response(nobody, "anna : museum from nine .".split())[:2] == (0 + 1, 0.5)
    assert read_response([s.BOS, *"time flies fast .".split(), s.ASSISTANT], [s.EOS]).covered == 1
    assert read_response([], ["museum"]) == Attributes(1.0, 0.5, 0.0, 0.0)


@given(SEEDS, st.lists(st.sampled_from([*summary.words(), *s.SPECIAL, "nonsense", ""]), max_size=30))
@settings(max_examples=150, deadline=None)
def test_anything_is_read(seed, words):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, "test")
    mixed = [*sample_response(rng, prompt).words[:-1], *words]
    for response in (words, mixed, prompt):
        for asked in (prompt, words, mixed):
            assert all(0 <= value <= 1 for value in read_response(asked, response))


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=150, deadline=None)
def test_responses_fit_and_are_sentences(seed, split):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, split)
    written = sample_response(rng, prompt)
    assert len(written.words) <= 24
    assert written.words.index(s.EOS) == len(written.words) - 1
    assert written.logprob < 0
    said = [read_sentence(sentence) for sentence in split_sentences(written.words[:-1])]
    assert None not in said
    stated = [claim for each in said for claim in (*each.facts, each.remark) if claim]
    repeated = len(set(stated)) < len(stated)
    assert (read_response(prompt, written.words).fluent < 1) == repeated


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=200, deadline=None)
def test_each_fault_lowers_its_attribute_and_no_other_rises(seed, split):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, split)
    post = read_post(tuple(prompt))
    clauses = [
        f"the {fact.place} {s.RELATION[fact.relation].predicate.format(value=fact.value)}" for fact in post.facts
    ]
    false = [value for value in s.RELATION[post.facts[0].relation].values if value != post.facts[0].value]
    other = false[rng.integers(len(false))]
    lie = " ".join(other if word == post.facts[0].value else word for word in clauses[0].split())
    invention = next(talk for talk in tables.TALK if talk not in post.talk)

    def attributes(text: str) -> Attributes:
        return read_response(prompt, [*text.split(), s.EOS])

    good = attributes(f"{post.author} : {' and '.join(clauses)} .")
    assert good == (1, 1, good.short, 1)
    assert good.short > 0.3
    keys = len(clauses) + 1
    left_out = attributes(f"{post.author} : {' and '.join(clauses[1:])} .")
    assert left_out == (pytest.approx(1 - 1 / keys), 1, left_out.short, 1)
    assert left_out.short > good.short
    unnamed = attributes(f"{' and '.join(clauses)} .")
    assert unnamed == (pytest.approx(1 - 1 / keys), 1, unnamed.short, 1)
    lied = attributes(f"{post.author} : {' and '.join([lie, *clauses[1:]])} .")
    assert lied == (pytest.approx(1 - 1 / keys), 0.5, good.short, 1)
    invented = attributes(f"{post.author} : {' and '.join(clauses)} . {invention}")
    assert invented == (1, 0.5, invented.short, 1)
    assert invented.short < good.short
    padded = attributes(f"{post.author} : {' and '.join(clauses)} . who can say ?")
    assert padded == (1, 1, padded.short, 1)
    assert padded.short < good.short
    broken = attributes(f"{post.author} : {' '.join(clauses)} .")
    assert broken.fluent == 0


def test_shares_of_the_writers_sum_to_one():
    assert sum(MIXTURE.values()) == pytest.approx(1)
    assert set(MIXTURE) == set(WRITERS)


@pytest.fixture
def few_words(monkeypatch) -> None:
    """A language so small that nearly all summaries of one post can be seen."""
    for name, few in {
        "OPENINGS": ("",),
        "ATTRIBUTIONS": ("{author} says :",),
        "JOINTS": (",", "."),
        "ARTICLES": ("",),
        "SHORT_FORMS": {relation.name: (relation.predicate,) for relation in s.RELATIONS},
        "COMMENTS": ("it depends .",),
        "TALK": ("time flies fast .", "it rained again ."),
        "values_for": lambda place, relation, held_out: ("nine", "bread", "boris"),
    }.items():
        monkeypatch.setattr(summary, name, few)
    monkeypatch.setattr(s, "NAMES", ("anna", "boris", "clara"))


@pytest.mark.usefixtures("few_words")
def test_probabilities_are_exact():
    """Texts come as often as they should, each has one probability, and all those together make 1."""
    rng = np.random.default_rng(0)
    draws = 40_000
    logprobs: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for _ in range(draws):
        written = sample_response(rng, POST)
        text = " ".join(written.words)
        counts[text] += 1
        assert written.logprob == pytest.approx(logprobs.setdefault(text, written.logprob))
    expected = {text: draws * math.exp(logprob) for text, logprob in logprobs.items()}
    frequent = [text for text in expected if expected[text] > 20]
    assert len(frequent) > 100
    assert all(abs(counts[text] - expected[text]) < 5 * math.sqrt(expected[text]) for text in frequent)
    # What has not been seen weighs about as much as what has been seen once (Good, 1953).
    unseen = sum(count == 1 for count in counts.values()) / draws
    assert sum(expected.values()) / draws == pytest.approx(1 - unseen, abs=0.004)
    assert unseen < 0.04


def by_hand(slots: Slots) -> float:
    """The probability of what was drawn, summed over the writers, for two facts of three."""
    total = 0.0
    for name, writer in WRITERS.items():
        one = MIXTURE[name] * writer.body.get("facts", 0) / sum(writer.body.values())
        one *= writer.opening.get(slots.opening, 0) / sum(writer.opening.values())
        one *= writer.tail.get(slots.tail, 0) / sum(writer.tail.values())
        total += one * (1 - writer.complete) / 2
    return total


@pytest.mark.usefixtures("few_words")
@pytest.mark.parametrize(
    ("text", "slots", "words"),
    [
        # Both true after a plain opening; one of 2 joints.
        ("museum opens at nine , bakery sells bread .", Slots("plain", "facts", 2, "none"), 0.75**2 / 2),
        # One of 2 other names, and one of 2 false values.
        (
            "clara says : museum opens at nine . bakery sells boris .",
            Slots("stranger", "facts", 2, "none"),
            0.3 * 0.7 / 2 / 2 / 2,
        ),
        # The last fact once more.
        (
            "anna says : museum opens at nine , bakery sells bread . bakery sells bread .",
            Slots("author", "facts", 2, "again"),
            0.88**2 / 2,
        ),
    ],
)
def test_the_probability_of_a_response_by_hand(text, slots, words):
    rng = np.random.default_rng(0)
    wanted = [*text.split(), s.EOS]
    for _ in range(40_000):
        written = sample_response(rng, POST)
        if written.words == wanted:
            assert written.logprob == pytest.approx(math.log(words * by_hand(slots)))
            return
    pytest.fail(f"never written: {text}")


@given(SEEDS, SEEDS)
@settings(max_examples=100, deadline=None)
def test_the_same_generator_writes_the_same(seed, other):
    prompt = sample_prompt(np.random.default_rng(seed), "train")
    assert prompt == sample_prompt(np.random.default_rng(seed), "train")
    assert sample_response(np.random.default_rng(other), prompt) == sample_response(
        np.random.default_rng(other), prompt
    )
