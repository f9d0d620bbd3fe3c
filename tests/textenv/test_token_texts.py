"""The pieces of tokens make exactly the text that is scored, whatever the tokenizer."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from textenv import models as language_models
from textenv import smollm2
from textenv.env import TextEnv
from textenv.rendering import printable
from textenv.responses import Prompts, Responses
from textenv.rewards import PythonReward
from textenv.tasks.base import text_pairs
from textenv.token_texts import decode, shown_tokens, token_name, token_texts


def check_pieces(tokenizer, ids):
    whole = decode(tokenizer, ids)
    assert "".join(token_texts(tokenizer, ids)) == whole
    assert len(token_texts(tokenizer, ids)) == len(ids) == len(shown_tokens(tokenizer, ids))
    assert whole == decode(tokenizer, [token for token in ids if token not in tokenizer.all_special_ids])


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.integers(0, 2**31), max_size=16))
def test_pieces_of_any_tokens_make_the_decoded_text(language_model, numbers):
    """Any ids, broken characters, special tokens and ids without a token among them."""
    tokenizer = language_model.tokenizer
    ids = [number % (len(tokenizer) + 3) for number in numbers]
    check_pieces(tokenizer, ids)
    if ids:
        prompts = Prompts.from_lists([[5]], 0)
        responses = Responses.from_lists(prompts, [ids], language_model.pad_id)
        assert text_pairs(responses, tokenizer)[1] == ["".join(token_texts(tokenizer, ids))]


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet="abc Zü東👍\n\t12,!", max_size=20))
def test_pieces_of_any_text_make_the_text(tiny_models, text):
    gpt2, llama = tiny_models["gpt2"], tiny_models["llama"]
    assert "".join(token_texts(gpt2.tokenizer, gpt2.encode(text))) == text
    # Its first word was given a space if it had none, and the first space is left out again.
    first = text[1:] if text.startswith(" ") else text
    assert "".join(token_texts(llama.tokenizer, llama.encode(text))) in (text, first)


def test_a_character_belongs_to_its_last_token(tiny_models):
    gpt2, llama = tiny_models["gpt2"], tiny_models["llama"]
    assert token_texts(gpt2.tokenizer, gpt2.encode("a 東!")) == ["a", " ", "", "", "東", "!"]
    assert token_texts(gpt2.tokenizer, gpt2.encode("a 東!")[:4]) == ["a", " ", "�", ""]
    assert token_texts(llama.tokenizer, llama.encode("東!")) == ["", "", "", "東", "!"]


def test_tokens_keep_the_spaces_that_they_would_lose_alone(tiny_models):
    unigram = tiny_models["unigram"]
    ids = unigram.encode("the cat sat")
    pieces = token_texts(unigram.tokenizer, ids)
    assert "".join(pieces) == "the cat sat"
    assert "".join(unigram.tokenizer.decode([token]) for token in ids) == "thecatsat"
    words = language_models.load("exact").tokenizer
    assert token_texts(words, [2, 3, 1]) == ["a", " b", ""]


def test_people_are_shown_the_names_of_what_is_no_text(tiny_models):
    llama = tiny_models["llama"]
    ids = [llama.tokenizer.bos_token_id, *llama.encode("a"), llama.eos_id, 9999]
    assert token_texts(llama.tokenizer, ids) == ["", "a", "", ""]
    assert shown_tokens(llama.tokenizer, ids) == ["<s>", "a", "</s>", ""]
    assert token_name(llama.tokenizer, llama.eos_id) == "</s>"
    assert token_name(llama.tokenizer, 9999) == "#9999"
    assert token_texts(llama.tokenizer, []) == shown_tokens(llama.tokenizer, []) == []


def test_no_space_is_cleaned_away():
    """Tokenizers of BERT's time take out the space before punctuation, unless they are told not to."""
    words = Tokenizer(models.WordLevel({"<end>": 0, "well": 1, ".": 2, "n't": 3}, unk_token="<end>"))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", clean_up_tokenization_spaces=True)
    assert wrapped.decode([1, 2, 1, 3]) == "well. welln't"
    assert decode(wrapped, [1, 2, 1, 3]) == "well . well n't"
    assert token_texts(wrapped, [1, 2, 1, 3]) == ["well", " .", " well", " n't"]


def test_a_reward_gets_the_text_of_the_tokens_and_the_screen_shows_it(language_model, tiny_task):
    """Random tokens through the environment: what is scored is what is decoded, and what is rendered."""
    scored = []

    def score(prompts, responses):
        scored.extend(responses)
        return [0.0] * len(responses)

    tokenizer = language_model.tokenizer
    env = TextEnv(
        tiny_task(language_model, ["the cat", "a dog"]),
        reward_function=PythonReward(score, tokenizer),
        reference=language_model,
        render_mode="ansi",
    )
    env.action_space.seed(0)
    for seed in range(6):
        env.reset(seed=seed)
        tokens, done = [], False
        while not done:
            tokens.append(int(env.action_space.sample()))
            _, _, done, _, _ = env.step(tokens[-1])
        assert scored[-1] == decode(tokenizer, tokens)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", env.render())
        assert re.sub(" ?\\[(eos|length)]$", "", shown).endswith(printable("".join(shown_tokens(tokenizer, tokens))))
    assert len(scored) == 6


@pytest.mark.slow
def test_smollm2s_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(smollm2.checkpoint())
    text = "The cat — 東京 👍 — isn't here .\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(tokenizer, ids)) == text == decode(tokenizer, [*ids, tokenizer.eos_token_id])
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        check_pieces(tokenizer, torch.randint(len(tokenizer), (24,), generator=generator).tolist())
