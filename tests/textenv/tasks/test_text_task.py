"""Prompts of the user's own, with tokenizers trained here and with SmolLM2's."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.models import load
from textenv.responses import Responses
from textenv.tasks.base import prompts_of, text_pairs
from textenv.tasks.text import TextTask

CORPUS = ["the cat sat on the mat", "a dog sat on a log", "Zürich is a city", "the city has a cat", "12 dogs, 3 cats!"]


def gpt2():
    """Byte-level BPE, no padding token, no special tokens before a text: as GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_embd=16, n_layer=1, n_head=2, n_positions=64,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config), PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def llama():
    """SentencePiece-like BPE with "▁" for spaces and byte fallback, <s> before each text: as Llama 2."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The bytes are ordinary tokens and not special ones, as SentencePiece has them.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config), PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def make(maker):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, tokenizer = maker()
    return LanguageModel(maker.__name__, model.eval().requires_grad_(False), tokenizer)


MODELS = {maker.__name__: make(maker) for maker in (gpt2, llama)}


@pytest.fixture(params=MODELS)
def language_model(request):
    return MODELS[request.param]


@pytest.fixture
def write(tmp_path):
    def write(content, name="prompts.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def texts(task, split, count):
    return [task.tokenizer.decode(ids, skip_special_tokens=True) for ids in task.fixed_prompts(split, count)]


def test_prompts_are_read_back_as_they_were_written(language_model, write):
    prompts = ["the cat", "Zürich 東京 👍", "two  spaces", "12, 3!"]
    task = TextTask.from_file(write("\n".join(prompts)), language_model)
    read = {text for split in ("train", "validation", "test") for text in texts(task, split, 4)}
    assert read == set(prompts)


def test_a_prompt_begins_as_the_tokenizer_begins_a_text(write):
    path = write("the cat")
    assert TextTask.from_file(path, MODELS["llama"]).fixed_prompts("train", 1)[0][0] == 1
    expected = MODELS["gpt2"].encode("the cat")
    assert TextTask.from_file(path, MODELS["gpt2"]).fixed_prompts("train", 1) == [expected]


def test_the_text_that_is_scored_is_the_text_of_the_tokens(language_model, write):
    """Sampled tokens, among them any that a random model chooses: the reward sees what people see."""
    task = TextTask.from_file(write("the cat\na dog\nthe city"), language_model)
    prompts = prompts_of(task, task.fixed_prompts("train", 2))
    sample = language_model.sample(prompts, max_tokens=12, group_size=4, generator=torch.Generator().manual_seed(0))
    asked, answers = text_pairs(sample.responses, task.tokenizer)
    assert asked == [text for text in texts(task, "train", 2) for _ in range(4)]
    for ids, answer in zip(sample.responses.to_lists(), answers, strict=True):
        assert answer == language_model.decode([token for token in ids if token != language_model.eos_id])


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet="abc Zü東👍\n\t12,!", min_size=1, max_size=20))
def test_any_response_text_survives_the_tokens(text):
    language_model = MODELS["gpt2"]
    ids = language_model.encode(text)
    prompts = prompts_of(_task(language_model), [language_model.encode("a")])
    responses = Responses.from_lists(prompts, [[*ids, language_model.eos_id]], language_model.pad_id)
    assert text_pairs(responses, language_model.tokenizer)[1] == [text]


def _task(language_model):
    ids = language_model.encode("a")
    return TextTask([("a", ids)], language_model, prompt_length=len(ids), response_length=24, beta=0.1)


def test_splits_share_no_prompt_and_hold_all(write):
    prompts = [f"the cat {number}" for number in range(200)]
    task = TextTask.from_file(write("\n".join(prompts)), MODELS["gpt2"])
    parts = {split: set(texts(task, split, 200)) for split in ("train", "validation", "test")}
    assert sum(len(part) for part in parts.values()) == 200
    assert set.union(*parts.values()) == set(prompts)
    assert 8 <= len(parts["validation"]) <= 35
    assert 8 <= len(parts["test"]) <= 35
    assert set(texts(task, "heldout", 200)) == parts["test"]


def test_a_prompt_stays_in_its_split_when_others_are_added(write):
    few, many = ([f"the cat {number}" for number in range(count)] for count in (100, 200))
    small = TextTask.from_file(write("\n".join(few), "few.txt"), MODELS["gpt2"])
    large = TextTask.from_file(write("\n".join(many), "many.txt"), MODELS["gpt2"])
    for split in ("train", "validation", "test"):
        assert set(texts(small, split, 100)) <= set(texts(large, split, 200))


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(3, 12), st.integers(0, 1000))
def test_each_split_has_a_prompt_where_there_are_three(count, start):
    language_model = MODELS["gpt2"]
    prompts = [(str(start + number), [number]) for number in range(count)]
    task = TextTask(prompts, language_model, prompt_length=1, response_length=1, beta=0.1)
    parts = [{tuple(ids) for ids in task.fixed_prompts(s, count)} for s in ("train", "validation", "test")]
    assert all(parts)
    assert sum(len(part) for part in parts) == count == len(set.union(*parts))


@pytest.mark.parametrize("count", [1, 2])
def test_with_fewer_than_three_prompts_every_split_holds_them_all(write, count):
    prompts = ["the cat", "a dog"][:count]
    task = TextTask.from_file(write("\n".join(prompts)), MODELS["gpt2"])
    for split in ("train", "validation", "test", "heldout"):
        assert texts(task, split, count) == prompts


def test_a_prompt_that_is_shown_can_be_typed(language_model, write):
    path = write('{"prompt": " the cat\\nsat "}\n{"prompt": "a dog "}\n{"prompt": "Zürich 東"}\n', "prompts.jsonl")
    task = TextTask.from_file(path, language_model, prompt_length=20)
    for prompt in (task.fixed_prompts(split, 1)[0] for split in ("train", "validation", "test")):
        assert task.prompt_text(prompt) in (" the cat\nsat ", "a dog ", "Zürich 東")
        assert task.encode_prompt(task.prompt_text(prompt)) == prompt
    assert task.prompt_text(task.encode_prompt("the mat")) == "the mat"
    with pytest.raises(UsageError, match="prompt is empty"):
        task.encode_prompt("")
    with pytest.raises(UsageError, match="not UTF-8"):
        task.encode_prompt("caf\udce9")
    with pytest.raises(UsageError, match="more than the 20 of the task"):
        task.encode_prompt("dogs! " * 20)


def test_a_list_of_prompts_is_as_good_as_a_file(write):
    path, prompts = write("the cat\na dog\nthe city"), ["the cat", "a dog", "the city", "a dog"]
    written, given = TextTask.from_file(path, MODELS["gpt2"]), TextTask.from_texts(prompts, MODELS["gpt2"])
    for split in ("train", "validation", "test"):
        assert given.fixed_prompts(split, 3) == written.fixed_prompts(split, 3)
    with pytest.raises(UsageError, match="prompt 2: the prompt '' has no tokens"):
        TextTask.from_texts(["the cat", ""], MODELS["gpt2"])
    with pytest.raises(UsageError, match="there are no prompts"):
        TextTask.from_texts([], MODELS["gpt2"])


def test_draws_come_from_the_generator_and_lists_are_the_callers_own(write):
    task = TextTask.from_file(write("\n".join(f"cat {n}" for n in range(20))), MODELS["gpt2"])
    one, two = (task.sample_prompts("train", 8, np.random.default_rng(3)) for _ in range(2))
    assert one == two
    task.fixed_prompts("test", 1)[0].clear()
    assert task.fixed_prompts("test", 1)[0]
    assert len(task.fixed_prompts("test", 50)) == 50


def test_what_the_task_says_of_itself(write):
    task = TextTask.from_file(write("the cat\n\n  a dog  \nthe cat\n"), MODELS["gpt2"], response_length=5, beta=0.2)
    assert (task.name, task.response_length, task.beta, task.attribute_names) == ("text", 5, 0.2, ())
    assert task.prompt_length == max(len(ids) for ids in task.fixed_prompts("train", 2))
    assert texts(task, "train", 2) == ["the cat", "a dog"]  # stripped, and once each
    prompts = prompts_of(task, task.fixed_prompts("train", 2))
    assert task.gold(Responses.from_lists(prompts, [[1], [2]], 0)) is None


def test_jsonl_keeps_the_prompt_as_it_is(write):
    path = write('{"prompt": "the cat\\nsat ", "other": 1}\n\n{"prompt": "a dog"}\n', "prompts.jsonl")
    assert texts(TextTask.from_file(path, MODELS["gpt2"]), "train", 2) == ["the cat\nsat ", "a dog"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_text(write):
    path = write(b"\xef\xbb\xbfthe cat\r\na dog\r\n")
    assert texts(TextTask.from_file(path, MODELS["gpt2"]), "train", 2) == ["the cat", "a dog"]


def test_chat_puts_the_prompt_into_the_template(write):
    language_model = make(gpt2)
    path = write("the cat")
    with pytest.raises(UsageError, match="no chat template"):
        TextTask.from_file(path, language_model, chat=True)
    language_model.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[reply]"
    task = TextTask.from_file(path, language_model, chat=True)
    assert texts(task, "train", 1) == ["[user]the cat[reply]"]
    assert task.prompt_text(task.fixed_prompts("train", 1)[0]) == "the cat"
    assert task.encode_prompt("the cat") == task.fixed_prompts("train", 1)[0]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "p.txt", "no prompts in it"),
        (b" \n\n", "p.txt", "no prompts in it"),
        (b"the cat\n\xff\xfe dog\n", "p.txt", "line 2: not UTF-8"),
        (b'{"prompt": "a"}\n{"prompt": \n', "p.jsonl", "line 2: not JSON"),
        (b'{"text": "a"}\n', "p.jsonl", 'line 1: no field "prompt"'),
        (b'["a"]\n', "p.jsonl", 'line 1: no field "prompt"'),
        (b'{"prompt": 3}\n', "p.jsonl", 'line 1: the field "prompt" is 3'),
        (b'{"prompt": " "}\n', "p.jsonl", "line 1"),
        (b"a\n" + b"cat " * 60, "p.txt", "line 2: the prompt has .* tokens, more than the 40"),
    ],
)
def test_bad_files_are_named_with_their_line(write, content, name, message):
    with pytest.raises(UsageError, match=message):
        TextTask.from_file(write(content, name), MODELS["gpt2"])


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="there is no prompts file"):
        TextTask.from_file(tmp_path / "none.txt", MODELS["gpt2"])
    with pytest.raises(UsageError, match="cannot be read"):
        TextTask.from_file(tmp_path, MODELS["gpt2"])


def test_lengths_that_do_not_fit_are_refused(write):
    path = write("the cat sat on the mat")
    with pytest.raises(UsageError, match="more than the 2 that the prompt length allows"):
        TextTask.from_file(path, MODELS["gpt2"], prompt_length=2)
    with pytest.raises(UsageError, match="takes 64 tokens, so 72 response tokens leave no room for a prompt"):
        TextTask.from_file(path, MODELS["gpt2"], response_length=72)
    with pytest.raises(UsageError, match="do not fit into the 64"):
        TextTask.from_file(path, MODELS["gpt2"], prompt_length=50)
    with pytest.raises(UsageError, match="at least 1 token"):
        TextTask.from_file(path, MODELS["gpt2"], response_length=0)


def test_a_prompt_without_tokens_is_named(write):
    """A word-level tokenizer without an unknown token drops what it does not know."""
    tokenizer = Tokenizer(models.BPE(vocab={"<end>": 0, "a": 1}, merges=[]))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    language_model = LanguageModel("letters", MODELS["gpt2"].model, wrapped)
    with pytest.raises(UsageError, match="line 2: the prompt 'x' has no tokens"):
        TextTask.from_file(write("a\nx"), language_model)


@pytest.mark.slow
def test_smollm2_reads_prompts_plainly_and_as_chat(write):
    language_model = load("smollm2")
    path = write("Once upon a time\nWhat is a cat?")
    assert texts(TextTask.from_file(path, language_model), "train", 2) == ["Once upon a time", "What is a cat?"]
    chat = TextTask.from_file(path, language_model, chat=True)
    assert texts(chat, "train", 2)[1].endswith("user\nWhat is a cat?\nassistant\n")
