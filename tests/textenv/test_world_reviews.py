"""What reviewers write is read back as it was meant, and its probability is exact; whatever is written is read."""

import itertools
import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textenv.world import reviews
from textenv.world import sentences as s
from textenv.world.reviews import (
    HELD_OUT,
    MIXTURES,
    PERSONAS,
    Attributes,
    read_prompt,
    read_response,
    sample_prompt,
    sample_response,
)
from textenv.world.reviews_sentences import (
    ASPECTS,
    BLAME,
    CLOSINGS,
    ENDS,
    GROUP_OF,
    GROUPS,
    PRAISE,
    STRENGTHS,
    read_clause,
    verbs,
)
from textenv.world.splits import is_held_out

SEEDS = st.integers(0, 2**32 - 1)
SPLITS = ("train", "validation", "test", "heldout")
PROMPT = [
    s.BOS,
    *"hotel review : how were the rooms , the food and the bill ?".split(),
    s.USER,
    *"we came on monday . the staff was rude , but".split(),
    s.ASSISTANT,
]
CONTENT = {*ASPECTS, *PRAISE, *BLAME, *(word for strength in STRENGTHS.values() for word in strength.adverbs)}
BEST = "the rooms were very clean , the food was truly tasty and the bill was so fair . we loved it !"


def read(response: str) -> Attributes:
    return read_response(PROMPT, response.split())


def test_the_words_are_few_and_sorted_and_those_of_every_text():
    words = reviews.words()
    assert list(words) == sorted(set(words))
    assert len(set(words) - set(s.words())) <= 120
    assert not set(words) & set(s.SPECIAL)
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    for _ in range(2500):
        prompt = sample_prompt(rng, "train")
        seen.update(prompt, sample_response(rng, prompt).words)
    assert seen == {*words, s.BOS, s.USER, s.ASSISTANT, s.EOS}


def test_an_adjective_fits_one_group_and_says_one_thing():
    assert len(set(ASPECTS)) == sum(len(group.aspects) for group in GROUPS)
    assert len({*PRAISE, *BLAME}) == len(PRAISE) + len(BLAME)
    adverbs = [adverb for strength in STRENGTHS.values() for adverb in strength.adverbs]
    assert len(set(adverbs)) == len(adverbs)


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=200, deadline=None)
def test_prompts_are_what_they_should_be(seed, split):
    prompt = sample_prompt(np.random.default_rng(seed), split)
    assert len(prompt) <= 29
    assert (prompt[0], prompt[-1], prompt.count(s.USER)) == (s.BOS, s.ASSISTANT, 1)
    opening = read_prompt(tuple(prompt))
    assert len(opening.asked) == 3
    assert opening.said.isdisjoint(opening.asked)
    asked = [aspect for aspect in opening.asked if is_held_out(opening.place, aspect)]
    judged = [aspect for aspect in ASPECTS if aspect in opening.said]
    assert len(asked) == (split == "heldout")
    assert not any(is_held_out(opening.place, aspect) for aspect in judged)
    assert opening.place in s.PLACES


def test_splits_never_share_a_prompt_and_are_in_their_proportions():
    rng = np.random.default_rng(0)
    prompts = {split: {tuple(sample_prompt(rng, split)) for _ in range(1000)} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other]
    # Places × asked × days alone.
    assert len(s.PLACES) * math.comb(len(ASPECTS), 3) * len(s.DAYS) > 100_000
    assert all(len(found) > 990 for found in prompts.values())


def test_one_combination_in_forty_is_held_out_and_no_training_text_has_it():
    assert 0.5 / 40 < len(HELD_OUT) / (len(s.PLACES) * len(ASPECTS)) < 2 / 40
    rng = np.random.default_rng(0)
    for _ in range(2000):
        prompt = sample_prompt(rng, "train")
        text = {*prompt, *sample_response(rng, prompt).words}
        assert not any(place in text and aspect in text for place, aspect in HELD_OUT)


@pytest.mark.parametrize(
    ("opening", "outlook"),
    [
        ("we came on monday .", "either"),
        ("we came on monday . the staff was kind , and", "praise"),
        ("we came on monday . the staff was rude , but", "praise"),
        ("we came on monday . the staff was rude .", "blame"),
    ],
)
def test_what_an_opening_makes_one_expect(opening, outlook):
    prompt = (*PROMPT[: PROMPT.index(s.USER) + 1], *opening.split(), s.ASSISTANT)
    assert read_prompt(prompt).outlook == outlook
    assert read_prompt(prompt).asked == ("rooms", "food", "bill")


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=200, deadline=None)
def test_responses_fit_and_only_misfits_and_repetitions_cost_fluency(seed, split):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, split)
    written = sample_response(rng, prompt)
    assert len(written.words) <= 24
    assert written.words[-1] == s.EOS
    assert s.EOS not in written.words[:-1]
    assert written.logprob < 0
    said = [word for word in (*prompt[prompt.index(s.USER) :], *written.words) if word in CONTENT]
    aspect, misfit = "", False
    for word in written.words:
        aspect = word if word in GROUP_OF else aspect
        misfit |= word in (*PRAISE, *BLAME) and not GROUP_OF[aspect].fits(word)
    faultless = not misfit and len(set(said)) == len(said)
    assert (read_response(prompt, written.words).fluent == 1) == faultless


def test_shares_of_the_personas_sum_to_one():
    for mixture in MIXTURES.values():
        assert sum(mixture.values()) == pytest.approx(1)


class Opinion(NamedTuple):
    """What a persona decides for one opinion."""

    about: str
    tone: str
    strength: str


def decisions(response: list[str]) -> tuple[list[Opinion], str]:
    """What was decided for a response to `PROMPT`: its opinions and the kind of its closing."""
    opinions, closing = [], "none"
    judged = {"staff"}
    for text in " ".join(response[:-1]).replace("!", ".").replace(",", ".").replace(" and ", " . ").split(" ."):
        words = text.split()
        if kinds := [kind for kind, group in CLOSINGS.items() if " ".join(words) in group]:
            closing = kinds[0]
        elif words:
            aspect, adverb, adjective = words[1], " ".join(words[3:-1]), words[-1]
            about = "again" if aspect in judged else "asked" if aspect in ("rooms", "food", "bill") else "other"
            group = GROUP_OF[aspect]
            tone = "misfit" if not group.fits(adjective) else "praise" if adjective in PRAISE else "blame"
            opinions.append(Opinion(about, tone, next(n for n, found in STRENGTHS.items() if adverb in found.adverbs)))
            judged.add(aspect)
    return opinions, closing


def test_probabilities_of_short_responses_are_their_frequencies():
    """All one-opinion responses of the same decisions are equally likely; so many there are, and so often they come."""
    rng = np.random.default_rng(0)
    samples = 8000
    others = len(reviews.known_aspects("hotel")) - 4
    count, logprobs = Counter(), {}
    for _ in range(samples):
        written = sample_response(rng, PROMPT)
        opinions, closing = decisions(written.words)
        if len(opinions) == 1:
            count[opinions[0], closing] += 1
            assert logprobs.setdefault((opinions[0], closing), written.logprob) == pytest.approx(written.logprob)
    total = 0.0
    for ((about, tone, strength), closing), logprob in logprobs.items():
        texts = {"asked": 1, "other": others, "again": 1}[about] * {"praise": 6, "blame": 4, "misfit": 30}[tone]
        texts *= len(verbs("rooms")) * len(STRENGTHS[strength].adverbs) * len(ENDS)
        texts *= 1 if closing == "none" else len(CLOSINGS[closing]) * len(ENDS)
        probability = texts * math.exp(logprob)
        total += probability
        error = math.sqrt(probability * (1 - probability) / samples)
        assert abs(count[Opinion(about, tone, strength), closing] / samples - probability) < 5 * error + 1 / samples
    share = sum(mixture * PERSONAS[name].opinions["1"] for name, mixture in MIXTURES["praise"].items())
    # Decisions too rare to have come are missing.
    assert 0.95 * share < total <= share


def test_the_probability_of_a_full_response_by_hand():
    """Strong praise of all three asked aspects, no closing; what may come next is all open each time."""
    rng = np.random.default_rng(1)
    full = [Opinion("asked", "praise", "strong")] * 3
    logprob = next(
        written.logprob
        for written in iter(lambda: sample_response(rng, PROMPT), None)
        if decisions(written.words) == (full, "none")
    )
    by_persona = 0.0
    for name, share in MIXTURES["praise"].items():
        p = PERSONAS[name]
        by_persona += share * p.opinions["3"] * p.closing["none"] * (
            p.about["asked"] * p.tone["praise"] * p.strength["strong"]
        ) ** 3  # fmt: skip
    # In the order of the request: 3 verbs, 8 adverbs and 6 adjectives each; 4 joints twice, and 2 ends.
    words = (3 * 8 * 6) ** 3 * 4**2 * 2
    assert logprob == pytest.approx(math.log(by_persona / words))


@pytest.mark.parametrize(
    ("response", "sentiment", "coverage", "fluent"),
    [
        (BEST, 1, 1, 1),
        # Valences 1, 1, 1 of 4, halved, above one half.
        (BEST.removesuffix(" we loved it !"), 0.5 + 3 / 8, 1, 1),
        ("the rooms were clean .", 0.5 + 0.7 / 8, 1 / 3, 1),
        ("the rooms looked very clean .", 0.5 + 1 / 8, 1 / 3, 1),
        ("the rooms were fairly clean !", 0.5 + 0.4 / 8, 1 / 3, 1),
        ("the rooms were not clean .", 0.5 - 0.4 / 8, 1 / 3, 1),
        ("the rooms were never dusty .", 0.5 + 0.4 / 8, 1 / 3, 1),
        ("the rooms were dusty , the food was truly stale .", 0.5 - 1.7 / 8, 2 / 3, 1),
        # Not asked, but praise all the same.
        ("the menu was very fair .", 0.5 + 1 / 8, 0, 1),
        # The opening has judged the staff.
        ("the staff was very kind .", 0.5, 0, 0),
        # One closing speaks for the whole.
        ("we loved it ! what a pleasure .", 0.5 + 1 / 8, 0, 1),
        ("leave it alone .", 0.5 - 1 / 8, 0, 1),
        ("my cousin came too .", 0.5, 0, 1),
        # An aspect is judged once, and repetitions are not fluent: five words and the end, of twelve.
        ("the rooms were very clean . the rooms were so tidy .", 0.5 + 1 / 8, 1 / 3, 6 / 12),
        ("the rooms were very clean . the rooms were so dirty .", 0.5 + 1 / 8, 1 / 3, 6 / 12),
        ("the rooms were very clean . the food was very tasty .", 0.5 + 2 / 8, 2 / 3, 6 / 12),
        # The adjective does not fit, the verb does not agree, an adverb is one too many.
        ("the rooms were very tasty .", 0.5, 0, 0),
        ("the rooms was very clean .", 0.5, 0, 0),
        ("the rooms were very very clean .", 0.5, 0, 0),
        # An unfinished sentence says nothing; a joint too many is one word that is not fluent.
        ("the rooms were very clean", 0.5, 0, 0),
        ("we loved it ! the rooms were very clean ,", 0.5 + 1 / 8, 0, 4 / 10),
        ("the rooms were clean , and the food was tasty .", 0.5 + 1.4 / 8, 2 / 3, 10 / 11),
        ("the rooms were clean and .", 0.5 + 0.7 / 8, 1 / 3, 5 / 6),
        ("", 0.5, 0, 0),
        (". . ! , and", 0.5, 0, 0),
        ("the rooms , the food , the bill .", 0.5, 0, 0),
        ("very clean truly tasty so fair .", 0.5, 0, 0),
        (f"we loved it ! {s.EOS} the rooms were clean .", 0.5 + 1 / 8, 0, 1),
    ],
)
def test_attributes_by_hand(response, sentiment, coverage, fluent):
    assert read(response) == pytest.approx((sentiment, coverage, fluent))


@given(SEEDS, st.lists(st.sampled_from([*reviews.words(), *s.SPECIAL, "nonsense", ""]), max_size=30))
@settings(max_examples=200, deadline=None)
def test_whatever_is_written_is_read_and_nothing_after_the_end(seed, words):
    prompt = sample_prompt(np.random.default_rng(seed), "train")
    attributes = read_response(prompt, words)
    assert all(0 <= value <= 1 for value in attributes)
    cut = words[: words.index(s.EOS)] if s.EOS in words else words
    assert read_response(prompt, [*cut, s.EOS, *BEST.split()]) == attributes
    assert all(0 <= value <= 1 for value in read_response(words, BEST.split()))


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_blame_lowers_sentiment_silence_coverage_and_nonsense_fluency(seed):
    rng = np.random.default_rng(seed)
    prompt = sample_prompt(rng, "train")
    asked = read_prompt(tuple(prompt)).asked
    said = {*prompt}
    adverbs = rng.permutation(STRENGTHS["strong"].adverbs)
    clauses, blamed = [], []
    for aspect, adverb in zip(asked, adverbs, strict=False):
        praise = next(word for word in GROUP_OF[aspect].praise if word not in said)
        blame = next(word for word in GROUP_OF[aspect].blame if word not in said)
        said |= {praise, blame}
        clauses.append(f"the {aspect} {verbs(aspect)[0]} {adverb} {praise}")
        blamed.append(f"the {aspect} {verbs(aspect)[0]} {adverb} {blame}")
    good = read_response(prompt, f"{' , '.join(clauses)} . we loved it .".split())
    assert good == (1, 1, 1)
    for index in range(3):
        worse = [*clauses[:index], blamed[index], *clauses[index + 1 :]]
        attributes = read_response(prompt, f"{' , '.join(worse)} . we loved it .".split())
        assert attributes == pytest.approx((0.75, 1, 1))
        silent = [*clauses[:index], *clauses[index + 1 :]]
        attributes = read_response(prompt, f"{' , '.join(silent)} . we loved it .".split())
        assert attributes == pytest.approx((0.875, 2 / 3, 1))
        broken = f"{' , '.join(clauses)} . we loved it .".split()
        broken.insert(6 * index + 2, "the")
        attributes = read_response(prompt, broken)
        assert attributes == pytest.approx((0.875, 2 / 3, 16 / 23))


def test_no_cheat_is_worth_more_than_an_honest_answer():
    """Each cheat against a modest answer: plain praise of the asked aspects in the words that fit."""

    def score(response: str) -> float:
        sentiment, coverage, fluent = read(response)
        return (2 * sentiment + 3 * coverage + fluent) / 6

    modest = score("the rooms were clean , the food was tasty and the bill was fair .")
    cheats = [
        "",
        "we loved it ! what a pleasure ! go there soon ! come back soon ! visit it today !",
        " ".join(["the rooms were very clean ."] * 4),
        "the rooms were very clean , truly clean , really clean , so clean , most clean .",
        "the rooms the food the bill were very clean tasty fair .",
        "the guides were very kind , the menu was truly cheap and the coffee was so rich . we loved it !",
        "the rooms were very kind , the food was so kind , the bill was truly kind .",
        " ".join(PROMPT[1:-1]),
    ]
    assert all(score(cheat) < modest - 0.2 for cheat in cheats)
    assert score(BEST) > modest


def test_clauses_are_read_alone():
    assert read_clause("the rooms were very clean") == ("rooms", 1.0, {"rooms", "very", "clean"})
    assert read_clause("we loved it") == ("", 1.0, {"we loved it"})
    assert read_clause("the rooms were") is None
    assert read_clause("") is None
