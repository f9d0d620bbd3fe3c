"""Classify's world: the labels are true, the probabilities exact, and no trick beats an honest answer."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textenv.tasks.classify import Classify
from textenv.world import classify as k
from textenv.world import classify_sentences as c
from textenv.world import sentences as s
from textenv.world.classify_message import read_message
from textenv.world.classify_writers import ENDS, LEADS, SINGLE, WRITERS, Choices, choices_probability
from textenv.world.scenario import split_sentences
from textenv.world.splits import is_held_out, split_of

SEEDS = st.integers(0, 2**32 - 1)
SPLITS = ("train", "validation", "test", "heldout")
MESSAGE = "<user> hello ! i find the bread hardly nice . <assistant>"
INTENT = f"<bos> labels : threat like rob , praise like superb , offer like bring , complaint like nasty . {MESSAGE}"
TOPIC = f"<bos> labels : nature like hill , food like tea , goods like soap , town like gate . {MESSAGE}"
RIGHT = "well , the label is complaint . you wrote hardly nice . have fun ! <eos>"


def read(prompt: str, response: str) -> k.Attributes:
    return k.read_response(prompt.split(), response.split())


def score(attributes: k.Attributes) -> float:
    return float(np.dot(attributes, Classify.weights) / sum(Classify.weights))


def cues(words) -> set[str]:
    return {word for word in words if word in c.TELLING and word not in c.NOUNS}


@given(SEEDS, st.sampled_from(SPLITS))
@settings(max_examples=200, deadline=None)
def test_a_prompt_has_one_right_label_of_four_and_fits(seed, split):
    prompt = k.sample_prompt(np.random.default_rng(seed), split)
    message = read_message(prompt)
    assert prompt[:3] == [s.BOS, "labels", ":"]
    assert prompt[-1] == s.ASSISTANT
    assert len(prompt) <= Classify.prompt_length
    assert len(message.offered) == 4
    (right,) = message.right
    assert c.TEMPTING[right] in message.offered
    assert {*message.offered} <= {*c.INTENTS} or {*message.offered} <= {*c.TOPICS}
    assert len({*message.told.values()}) == 2
    cut = prompt.index(s.USER)
    examples = [word for word in prompt[:cut] if word in c.TELLING]
    assert [c.TELLING[example] for example in examples] == [*message.offered]


def test_the_labels_alone_do_not_tell_the_right_one():
    """All that is offered stands in pairs, and each of the four is right as often as the others."""
    rng = np.random.default_rng(0)
    places: Counter[int] = Counter()
    pairs: Counter[bool] = Counter()
    for _ in range(2000):
        message = read_message(k.sample_prompt(rng, "train"))
        assert {c.TEMPTING[label] for label in message.offered} == {*message.offered}
        (right,) = message.right
        places[message.offered.index(right)] += 1
        pairs[right < c.TEMPTING[right]] += 1
    assert all(abs(count - 500) < 5 * math.sqrt(375) for count in places.values())
    assert all(abs(count - 1000) < 5 * math.sqrt(500) for count in pairs.values())


def test_the_truth_of_messages_by_hand():
    def told(message: str) -> dict[str, str]:
        return dict(read_message([s.BOS, s.USER, *message.split(), s.ASSISTANT]).told)

    assert told("i find the bread hardly nice .") == {"bread": "food", "hardly nice": "complaint"}
    assert told("i call the mayor not awful .") == {"mayor": "people", "not awful": "praise"}
    assert told("we found the river truly ugly .") == {
        "river": "nature",
        "ugly": "complaint",
        "truly ugly": "complaint",
    }
    assert told("today i burn the castle .") == {"castle": "buildings", "burn": "threat"}
    assert told("i need the soap .") == {"soap": "goods", "need": "request"}
    assert told("we mend the bridge .") == {"bridge": "town", "mend": "offer"}
    assert told("the tea , why ?") == {"tea": "food", "why": "question"}
    assert told("the weather is lovely .") == {}


def test_every_label_is_asked_for_as_often_as_its_kind_says():
    rng = np.random.default_rng(0)
    counts = Counter(next(iter(read_message(k.sample_prompt(rng, "train")).right)) for _ in range(3000))
    assert set(counts) == {*c.LABELS}
    # Half of the prompts ask for one of six topics, half for one of six intents: 250 each, give or take 5 deviations.
    assert all(abs(count - 250) < 5 * math.sqrt(250) for count in counts.values())


@given(SEEDS)
@settings(max_examples=300, deadline=None)
def test_texts_use_the_words_of_the_language_and_fit(seed):
    rng = np.random.default_rng(seed)
    prompt = k.sample_prompt(rng, "train")
    response = k.sample_response(rng, prompt).words
    assert {*prompt, *response} <= {*k.words(), *s.SPECIAL}
    assert len(response) <= Classify.response_length
    assert response.index(s.EOS) == len(response) - 1
    assert read(" ".join(prompt), " ".join(response)).fluent == 1


def test_words_are_sorted_and_few_are_new():
    assert list(k.words()) == sorted({*k.words()})
    assert not {*k.words()} & {*s.SPECIAL}
    assert len({*k.words()} - {*s.words()}) <= 120


def test_a_word_tells_one_label_and_a_label_is_no_other_word():
    groups = [*c.TOPICS.values(), *c.ADJECTIVES.values(), *c.VERBS.values(), *c.ASKING.values(), c.LABELS, c.DEGREES]
    assert max(Counter(itertools.chain(*groups)).values()) == 1
    fixed = (*c.ASIDES, *c.CASUAL_LEADS, *c.CAREFUL_LEADS, *c.STATEMENTS, *c.TAILS, *c.REASONS, *c.EVASIONS)
    ends = itertools.chain(*ENDS.values())
    assert not {word for text in (*fixed, *ends) for word in text.split()} & {*c.LABELS, *c.TELLING}


def test_splits_do_not_meet_and_are_80_10_10():
    rng = np.random.default_rng(0)
    found = {split: {" ".join(k.sample_prompt(rng, split)) for _ in range(800)} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not found[one] & found[other]
    shares = Counter(split_of(prompt.split()) for prompt in found["heldout"])
    assert shares["train"] == pytest.approx(0.8 * len(found["heldout"]), rel=0.1)
    assert shares["test"] == pytest.approx(0.1 * len(found["heldout"]), rel=0.4)


def test_held_out_words_never_meet_in_a_training_text():
    rng = np.random.default_rng(0)
    pairs = list(itertools.product(c.NOUNS, cues(c.TELLING)))
    held_out = {pair for pair in pairs if is_held_out(*pair)}
    assert 1 / 60 < len(held_out) / len(pairs) < 1 / 30
    for _ in range(3000):
        prompt = k.sample_prompt(rng, "train")
        words = {*prompt, *k.sample_response(rng, prompt).words}
        assert not held_out & {*itertools.product(words & {*c.NOUNS}, cues(words))}
    for _ in range(300):
        words = {*k.sample_prompt(rng, "heldout")}
        assert held_out & {*itertools.product(words & {*c.NOUNS}, cues(words))}


@pytest.mark.parametrize("negated", [False, True])
def test_the_choices_probabilities_sum_to_one(negated):
    total = 0.0
    for act, lead, end in itertools.product(WRITERS["careful"].act, LEADS, ENDS):
        for reason in WRITERS["careful"].reason if act in SINGLE else ["none"]:
            for tail in (False, True) if act != "none" else (False,):
                total += choices_probability(Choices(negated, act, reason, lead, tail, end))
    assert total == pytest.approx(1)


def test_the_probability_of_an_answer_by_hand():
    rng = np.random.default_rng(0)
    found = {}
    while len(found) < 2:
        written = k.sample_response(rng, INTENT.split())
        text = " ".join(written.words)
        if text in ("it depends . <eos>", "complaint . <eos>"):
            found[text] = math.exp(written.logprob)
    # share × no label × no lead × no end of each writer, over six evasions.
    evasive = 0.36 * 0.02 * 0.1 * 0.35 + 0.2 * 0.1 * 0.2 * 0.5 + 0.2 * 0.1 * 0.3 * 0.35 + 0.14 * 0.7 * 0.6 * 0.15
    assert found["it depends . <eos>"] == pytest.approx(evasive / 6)
    # share × right label × not slipped × no reason × no lead × no tail × no end of each writer, over 14 statements.
    right = 0.36 * 0.87 * 0.8 * 0.6 * 0.1 * 0.6 * 0.35
    right += 0.2 * 0.32 * 0.2 * 0.65 * 0.2 * 0.7 * 0.5
    right += 0.1 * 0.25 * 0.5 * 0.4 * 0.2 * 0.4 * 0.4
    right += 0.2 * 0.1 * 0.7 * 0.8 * 0.3 * 0.7 * 0.35
    right += 0.14 * 0.05 * 0.7 * 0.7 * 0.6 * 0.9 * 0.15
    assert found["complaint . <eos>"] == pytest.approx(right / 14)


@pytest.mark.parametrize("prompt", [INTENT, TOPIC])
def test_the_probabilities_are_the_frequencies(prompt):
    """Short answers are few enough to be all seen, so their probabilities sum to their frequency; the same
    answer always has the same probability."""
    rng = np.random.default_rng(0)
    draws = 20_000
    logprobs: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for _ in range(draws):
        written = k.sample_response(rng, prompt.split())
        text = " ".join(written.words)
        assert logprobs.setdefault(text, written.logprob) == pytest.approx(written.logprob)
        counts[text] += 1
    likely = [text for text, logprob in logprobs.items() if logprob > math.log(3e-4)]
    assert len(likely) > 10
    for text in likely:
        expected = math.exp(logprobs[text]) * draws
        assert abs(counts[text] - expected) < 5 * math.sqrt(expected)
    # The mean of 1/p over any set of texts is their number: here, all answers with one label and nothing else.
    bare = {f"{form.format(label=label)} . <eos>" for form in c.STATEMENTS for label in c.LABELS}
    seen = sum(counts[text] * math.exp(-logprobs[text]) for text in bare if text in counts) / draws
    variance = sum(math.exp(-logprobs[text]) for text in bare if text in counts) / draws
    assert abs(seen - len(bare)) < 5 * math.sqrt(variance)


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        (INTENT, RIGHT, (1, 1, 1, 1, 1, 1)),
        (INTENT, "label : complaint . <eos>", (1, 1, 0.5, 0.5, 1, 1)),
        (INTENT, "i would say complaint , no doubt . <eos>", (1, 1, 0.5, 0.5, 1, 1)),
        (INTENT, "because of hardly nice . i pick complaint . <eos>", (1, 1, 1, 0.5, 1, 1)),
        # The one it is taken for; what it quotes says the opposite in the message.
        (INTENT, "i pick praise . because of nice . <eos>", (0, 1, 0, 0.5, 1, 1)),
        (INTENT, "i pick praise . because of hardly nice . <eos>", (0, 1, 0, 0.5, 1, 1)),
        # An example of the labels is not in the message.
        (INTENT, "i pick complaint . because of nasty . <eos>", (1, 1, 0, 0.5, 1, 1)),
        # What tells the topic is no reason for the intent, and what is not said is none at all.
        (INTENT, "i pick complaint . because of bread . <eos>", (1, 1, 0, 0.5, 1, 1)),
        (INTENT, "i pick complaint . because of awful . <eos>", (1, 1, 0, 0.5, 1, 1)),
        (INTENT, "i pick complaint . because of hardly nice . it says bread . <eos>", (1, 1, 0, 0.5, 1, 9 / 13)),
        # A true label that was not offered, with its reason; the same message asked for it is right.
        (INTENT, "i pick food . because of bread . <eos>", (0, 0, 1, 0.5, 1, 1)),
        (TOPIC, "i pick food . because of bread . <eos>", (1, 1, 1, 0.5, 1, 1)),
        (TOPIC, "i pick complaint . because of hardly nice . <eos>", (0, 0, 1, 0.5, 1, 1)),
        # Several labels are no answer, wherever they stand.
        (INTENT, "i pick complaint or praise . <eos>", (0, 0, 0.5, 0.5, 1, 1)),
        (INTENT, "i pick threat or praise or offer or complaint . <eos>", (0, 0, 0.5, 0.5, 1, 1)),
        (INTENT, "i pick complaint . i pick praise . <eos>", (0, 0, 0.5, 0.5, 1, 0.5)),
        (INTENT, "i pick complaint . praise praise <eos>", (0, 0, 0.5, 0.5, 1, 4 / 6)),
        (INTENT, "i pick complaint . it says praise . <eos>", (0, 0, 0, 0.5, 1, 0.5)),
        # Once is enough.
        (INTENT, "i pick complaint . i vote complaint . <eos>", (1, 1, 0.5, 0.5, 1, 0.5)),
        (INTENT, "i pick complaint or complaint . <eos>", (1, 1, 0.5, 0.5, 1, 0)),
        # No label, no reason.
        (INTENT, "that is hard . <eos>", (0, 0, 0.5, 0.5, 1, 1)),
        (INTENT, "well , it depends . <eos>", (0, 0, 0.5, 0.5, 1, 1)),
        (INTENT, "you wrote hardly nice . <eos>", (0, 0, 0, 0.5, 1, 1)),
        (INTENT, "you wrote soap . <eos>", (0, 0, 0, 0.5, 1, 1)),
        # Manners.
        (INTENT, "i pick complaint . get lost ! <eos>", (1, 1, 0.5, 0, 1, 1)),
        (INTENT, "i pick complaint . have fun ! get lost ! <eos>", (1, 1, 0.5, 0, 1, 1)),
        # Without a full stop the label is understood; a label among other words is none.
        (INTENT, "complaint <eos>", (1, 1, 0.5, 0.5, 1, 0)),
        (INTENT, "bread complaint bread . <eos>", (0, 0, 0.5, 0.5, 1, 0)),
        # Without an end it is not concise; after the end nothing counts.
        (INTENT, "i pick complaint .", (1, 1, 0.5, 0.5, 0, 1)),
        (INTENT, "i pick complaint . <eos> praise get lost !", (1, 1, 0.5, 0.5, 1, 1)),
        (INTENT, "<eos>", (0, 0, 0.5, 0.5, 1, 0)),
        (INTENT, "", (0, 0, 0.5, 0.5, 0, 0)),
    ],
)
def test_attributes_by_hand(prompt, response, expected):
    assert read(prompt, response) == pytest.approx(expected)


def test_long_answers_are_less_concise():
    lengths = [read(INTENT, "it depends . " * count + "<eos>").concise for count in (5, 6, 7, 8)]
    assert lengths == pytest.approx([1, 5 / 7, 2 / 7, 0])


@example(0, [""])
@given(SEEDS, st.lists(st.sampled_from([*k.words(), *s.SPECIAL, "nonsense", "", "{label}"]), max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_response_is_read(seed, words):
    prompt = k.sample_prompt(np.random.default_rng(seed), "test")
    attributes = k.read_response(prompt, words)
    assert all(0 <= value <= 1 for value in attributes)
    assert attributes.correct <= attributes.valid
    ended = [*words, s.EOS]
    assert k.read_response(prompt, ended) == k.read_response(prompt, [*ended, "praise", "."])


@given(st.lists(st.sampled_from([*k.words(), *s.SPECIAL]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_prompt_is_read(words):
    assert 0 <= k.read_response(words, words).fluent <= 1


@given(SEEDS)
@settings(max_examples=200, deadline=None)
def test_the_attributes_are_those_it_was_written_with(seed):
    """Every written label, reason and closing is found again, read word by word."""
    rng = np.random.default_rng(seed)
    prompt = k.sample_prompt(rng, "test")
    response = k.sample_response(rng, prompt).words
    attributes = k.read_response(prompt, response)
    message = read_message(prompt)
    labels = [word for word in response if word in c.LABELS]
    assert attributes.correct == (labels == [*message.right])
    assert attributes.valid == (len(labels) == 1 and labels[0] in message.offered)
    told = [word for word in response if word in c.TELLING]
    if not told:
        assert attributes.grounded == 0.5
    elif told[0] not in prompt[prompt.index(s.USER) :]:
        assert attributes.grounded == 0
    sentences = split_sentences(response[:-1])
    kind, rude = ({*sentences} & {*closings} for closings in (s.KIND_CLOSINGS, s.RUDE_CLOSINGS))
    assert attributes.polite == (1 if kind else 0 if rude else 0.5)


@pytest.mark.parametrize(
    ("fault", "attribute"),
    [
        (lambda text: text.replace("complaint", "praise"), "correct"),
        (lambda text: text.replace("complaint", "complaint or praise"), "correct"),
        (lambda text: text.replace("complaint", "food"), "valid"),
        (lambda text: text.replace("hardly nice", "nice"), "grounded"),
        (lambda text: text.replace("hardly nice", "very nice"), "grounded"),
        (lambda text: text.replace("you wrote hardly nice .", ""), "grounded"),
        (lambda text: text.replace("have fun !", "get lost !"), "polite"),
        (lambda text: text.replace("have fun !", ""), "polite"),
        (lambda text: text.replace("<eos>", ""), "concise"),
        (lambda text: text.replace("<eos>", "time flies fast . winter was long . <eos>"), "concise"),
        (lambda text: text.replace("<eos>", "bread <eos>"), "fluent"),
        (lambda text: text.replace("the label is", "label the is"), "fluent"),
    ],
)
def test_a_fault_costs(fault, attribute):
    right, faulty = read(INTENT, RIGHT), read(INTENT, fault(RIGHT))
    assert getattr(faulty, attribute) < getattr(right, attribute)
    assert score(faulty) < score(right) == 1


def test_no_trick_beats_an_honest_answer():
    """What can be said without reading the message stays far below a plain right answer."""
    rng = np.random.default_rng(0)
    prompts = [k.sample_prompt(rng, "validation") for _ in range(300)]

    def mean(answer) -> float:
        return float(np.mean([score(k.read_response(prompt, answer(prompt).split())) for prompt in prompts]))

    def offered(prompt) -> tuple[str, ...]:
        return read_message(prompt).offered

    honest = mean(lambda prompt: f"i pick {next(iter(read_message(prompt).right))} . <eos>")
    tricks = {
        "stop": lambda prompt: "<eos>",
        "babble": lambda prompt: "complaint " * 24,
        "copy": lambda prompt: " ".join(prompt[1:-1]) + " <eos>",
        "constant": lambda prompt: "i pick complaint . have fun ! <eos>",
        "guess": lambda prompt: f"i pick {offered(prompt)[0]} . have fun ! <eos>",
        "all": lambda prompt: f"i pick {' or '.join(offered(prompt))} . have fun ! <eos>",
        "flatter": lambda prompt: "have fun ! " * 4 + "<eos>",
    }
    assert all(mean(trick) < honest - 0.2 for trick in tricks.values())
