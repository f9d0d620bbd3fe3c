"""Sentences are read back and translated as meant, probabilities are exact, and chrF is sacrebleu's."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF

from textenv.world import sentences as s
from textenv.world import translate
from textenv.world.translate import (
    HELD_OUT,
    MIXTURE,
    PAIRS,
    TRANSLATORS,
    is_held_out,
    read_response,
    sample_prompt,
    sample_response,
)
from textenv.world.translate_dictionary import (
    ADJECTIVES,
    ARTICLES,
    DICTIONARY,
    ENGLISH,
    FIRST,
    GOODS,
    PEOPLE,
    Sentence,
    read_prompt,
    translation,
)

SEEDS = st.integers(0, 2**32 - 1)
SPLITS = ("train", "validation", "test", "heldout")
PROMPT = f"{s.BOS} nesu lido ha kubun vamita hozik vude . {s.ASSISTANT}".split()
TRUE = "the old baker sells the bread near the river on monday ."
TYPED = st.lists(st.sampled_from([*translate.words(), *s.SPECIAL]), max_size=24)


def chrf(response: str, prompt: list[str] = PROMPT) -> float:
    return read_response(prompt, response.split()).chrf


def test_the_words_are_few_and_sorted_and_those_of_every_text():
    words = translate.words()
    assert list(words) == sorted(set(words))
    assert len(set(words) - set(s.words())) <= 120
    assert not set(words) & set(s.SPECIAL)
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    for _ in range(2000):
        prompt = sample_prompt(rng, "train")
        seen.update(prompt, sample_response(rng, prompt).words)
    assert seen == {*words, s.BOS, s.ASSISTANT, s.EOS}


def test_no_word_is_ambiguous():
    english = [word for group in (*ENGLISH.values(), ARTICLES) for word in group]
    assert len(set(english)) == len(english)
    assert not set(ENGLISH) & {*english, *s.words()}
    assert sum(len(group) for group in DICTIONARY.values()) == len(ENGLISH) + len(ADJECTIVES)
    assert all(word.isascii() and word.isalpha() and word.islower() for word in (*english, *ENGLISH))


def test_a_sentence_is_read_and_translated():
    assert read_prompt(tuple(PROMPT)) == Sentence(
        person="kubun", verb="vude", good="hozik", trait="vamita", place="lido", relation="ha", day="nesu"
    )
    assert translation(PROMPT) == TRUE
    assert translation("sohu fuza rolo pamulon .".split()) == "the priest loses the strange fish ."


@pytest.mark.parametrize(
    ("text", "word_for_word"),
    [
        ("", ""),
        ("vude", "sells"),
        ("kubun vude hozik .", "baker sells bread ."),
        ("lido kubun hozik vude .", "river baker bread sells ."),
        ("kubun hozik vude", "baker bread sells"),
        ("kubun hozik vude . .", "baker bread sells . ."),
        ("hello kubun", "hello baker"),
    ],
)
def test_what_is_no_sentence_is_translated_word_for_word(text, word_for_word):
    assert read_prompt(tuple(text.split())) is None
    assert translation([s.BOS, *text.split(), s.ASSISTANT]) == word_for_word


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=300, deadline=None)
def test_prompts_are_sentences(seed, split):
    prompt = sample_prompt(np.random.default_rng(seed), split)
    assert len(prompt) <= 10
    sentence = read_prompt(tuple(prompt))
    assert sentence is not None
    missing = [part for part in ("trait", "quality", "place", "day") if not getattr(sentence, part)]
    assert len(missing) == 1
    assert is_held_out(sentence.person, sentence.good) == (split == "heldout")


def test_splits_never_share_a_prompt():
    rng = np.random.default_rng(0)
    prompts = {split: {tuple(sample_prompt(rng, split)) for _ in range(1000)} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other]
    assert all(len(found) > 980 for found in prompts.values())


def test_one_combination_in_forty_is_held_out_and_no_training_text_has_it():
    assert 0.5 / 40 < len(HELD_OUT) / len(PAIRS) < 2 / 40
    english = [(PEOPLE[person][0], GOODS[good][0]) for person, good in HELD_OUT]
    rng = np.random.default_rng(0)
    for _ in range(2000):
        prompt = sample_prompt(rng, "train")
        text = {*prompt, *sample_response(rng, prompt).words}
        assert not any(person in text and good in text for person, good in (*HELD_OUT, *english))


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=300, deadline=None)
def test_responses_fit(seed, split):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, split)
    written = sample_response(rng, prompt)
    assert len(written.words) <= 18
    assert written.words.index(s.EOS) == len(written.words) - 1
    assert written.logprob < 0


def test_shares_of_the_translators_sum_to_one():
    assert sum(MIXTURE.values()) == pytest.approx(1)
    assert MIXTURE.keys() == TRANSLATORS.keys()


SHORT = f"{s.BOS} kubun vamita hozik vude . {s.ASSISTANT}".split()


@pytest.fixture(scope="module")
def written() -> tuple[dict[str, float], Counter[str]]:
    """Log-probability of each text among many responses to the short sentence, and how often it was written."""
    rng = np.random.default_rng(0)
    logprobs: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for _ in range(8000):
        words, logprob = sample_response(rng, SHORT)
        text = " ".join(words[:-1])
        counts[text] += 1
        assert logprobs.setdefault(text, logprob) == pytest.approx(logprob)
    return logprobs, counts


def test_the_probability_of_a_right_translation_by_hand(written):
    """All four words right and none lost, both articles of the usual three, nothing added."""
    total = 0.0
    for name, share in MIXTURE.items():
        t = TRANSLATORS[name]
        articles = ((1 - t.bare) * (1 - t.odd) / 3) ** 2
        total += share * (1 - t.wrong) ** 4 * (1 - t.lost) * articles * (1 - t.literal) * (1 - t.remark)
    # Three adjectives and four verbs are as right.
    assert written[0]["the old baker sells your bread ."] == pytest.approx(math.log(total / 3 / 4))


def test_the_probability_of_a_faulty_translation_by_hand(written):
    """In the foreign order, the adjective lost and the person wrong: one that is not held out with bread."""
    total = 0.0
    for name, share in MIXTURE.items():
        t = TRANSLATORS[name]
        total += share * t.literal * t.wrong * (1 - t.wrong) ** 2 * t.lost * (1 - t.remark)
    others = [person for person in PEOPLE if person != "kubun" and not is_held_out(person, "hozik")]
    faulty = {f"{PEOPLE[person][0]} bread {verb} ." for person in others for verb in DICTIONARY["verb"]["vude"]}
    found = [logprob for text, logprob in written[0].items() if text in faulty]
    assert len(found) > 3
    assert found == pytest.approx([math.log(total / len(others) / 4)] * len(found))


def test_probabilities_are_the_frequencies(written):
    """Of each text that is written often, and of the set of those with a probability of this size."""
    logprobs, counts = written
    size = counts.total()
    expected = {text: math.exp(logprob) * size for text, logprob in logprobs.items()}
    frequent = [text for text in expected if expected[text] > 5]
    assert len(frequent) > 50
    for text in frequent:
        assert abs(counts[text] - expected[text]) < 5 * math.sqrt(expected[text])
    total = sum(expected[text] for text in frequent)
    assert abs(sum(counts[text] for text in frequent) - total) < 4 * math.sqrt(total)


def test_only_sentences_are_translated_by_translators():
    with pytest.raises(ValueError, match="no sentence"):
        sample_response(np.random.default_rng(0), ["kubun"])


def test_chrf_by_hand():
    """One word against another, with characters as in chrF's definition: n-grams up to the shorter one's length."""
    prompt = [s.BOS, "lido", s.ASSISTANT]  # no sentence: word for word "river"
    # "rive" has 4 of the 5 letters, 3 of 4 pairs, 2 of 3 triples, 1 of 2 fours: all its own are right.
    recall = (4 / 5 + 3 / 4 + 2 / 3 + 1 / 2) / 4
    assert read_response(prompt, ["rive"]).chrf == pytest.approx(5 * recall / (4 + recall))
    assert read_response(prompt, ["river"]).chrf == 1
    assert read_response(prompt, ["soap"]).chrf == 0


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_chrf_is_sacrebleus_against_the_translation_with_the_same_choices(seed):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, "train")
    words = sample_response(rng, prompt).words[:-1]
    first = " ".join(FIRST.get(word, word) for word in words)
    expected = CHRF().sentence_score(first, [translation(prompt)]).score / 100
    assert read_response(prompt, words).chrf == pytest.approx(expected)


def test_every_right_translation_is_as_good():
    choices = (ARTICLES, ADJECTIVES["vamita"], ["baker"], DICTIONARY["verb"]["vude"], ARTICLES, ["bread"])
    choices += (DICTIONARY["relation"]["ha"], ARTICLES, ["river"], ["on"], ["monday"], ["."])
    right = list(itertools.product(*choices))
    assert len(right) == 6**3 * 3 * 4 * 3
    assert all(read_response(PROMPT, words).chrf == 1 for words in right[::50])


@pytest.mark.parametrize(
    ("response", "low", "high"),
    [
        ("", 0, 0),
        (".", 0.0, 0.05),
        ("our ancient baker sold their bread by some river on monday .", 1, 1),
        ("the old baker sells the bread near the river on friday .", 0.8, 0.95),
        ("the old baker sells the bread near the river on monday . winter was long .", 0.85, 0.98),
        ("old baker sells bread near river on monday .", 0.6, 0.85),
        ("the baker sells the bread .", 0.3, 0.6),
        ("monday river near baker old bread sells .", 0.4, 0.6),
        ("the strange tailor loves the honey behind the hill on friday .", 0.2, 0.45),
        ("nesu lido ha kubun vamita hozik vude .", 0, 0.2),
        ("the the the the the the the the the the the the the the the the the the", 0, 0.3),
        ("monday monday monday river river river baker baker baker bread bread bread old old old", 0, 0.5),
    ],
)
def test_what_responses_are_worth(response, low, high):
    assert low <= chrf(response) <= high


def test_no_cheat_is_as_good_as_most_of_a_translation():
    most = chrf("the old baker sells the bread near the river on friday .")
    cheats = [
        TRUE.removesuffix(" .") + " " + TRUE,
        " ".join(sorted(TRUE.split())),
        " ".join(reversed(TRUE.split())),
        "the river the near the baker the old the bread the sells on the monday .",
        " ".join(PROMPT),
        " ".join((*PROMPT, *TRUE.split())),
    ]
    assert max(map(chrf, cheats)) < most


@given(TYPED, TYPED)
@settings(max_examples=300, deadline=None)
def test_whatever_is_written_is_read(prompt, response):
    (value,) = read_response(prompt, response)
    assert 0 <= value <= 1


@given(SEEDS, TYPED)
@settings(max_examples=100, deadline=None)
def test_nothing_is_read_after_the_end(seed, rest):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, "train")
    words = sample_response(rng, prompt).words
    assert read_response(prompt, [*words, *rest]) == read_response(prompt, words) == read_response(prompt, words[:-1])


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_each_fault_costs(seed):
    """A wrong word, a missing word, a repeated or an added one in a true translation; all lower chrF."""
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, "train")
    true = translation(prompt).split()
    place = int(rng.integers(len(true) - 1))
    added = translate.words()[int(rng.integers(len(translate.words())))]
    for faulty in (
        [*true[:place], *true[place + 1 :]],
        [*true[:place], true[place], *true[place:]],
        [*true[:place], added, *true[place:]],
        [*true, added],
        true[::-1],
    ):
        assert read_response(prompt, faulty).chrf < 1
    assert read_response(prompt, true[: place + 1]).chrf < read_response(prompt, true[: place + 2]).chrf
