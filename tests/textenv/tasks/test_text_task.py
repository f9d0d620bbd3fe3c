"""Prompts of the user's own, with tokenizers trained here and with SmolLM2's."""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from textenv.env import TextEnv
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.models import load
from textenv.responses import Prompts, Responses
from textenv.rewards import PythonReward
from textenv.tasks.base import prompts_of, text_pairs
from textenv.tasks.text import TextTask
from textenv.token_texts import decode


@pytest.fixture
def write(tmp_path):
    def write(content, name="prompts.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def texts(task, split, count):
    return [task.tokenizer.decode(ids, skip_special_tokens=True) for ids in task.fixed_prompts(split, count)]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_prompts_are_read_back_as_they_were_written(tiny_models, name, write):
    language_model = tiny_models[name]
    prompts = ["the cat", "Zürich 東京 👍", "two  spaces", "12, 3!"]
    task = TextTask.from_file(write("\n".join(prompts)), language_model)
    read = {text for split in ("train", "validation", "test") for text in texts(task, split, 4)}
    assert read == set(prompts)


def test_a_prompt_begins_as_the_tokenizer_begins_a_text(tiny_models, write):
    path = write("the cat")
    assert TextTask.from_file(path, tiny_models["llama"]).fixed_prompts("train", 1)[0][0] == 1
    expected = tiny_models["gpt2"].encode("the cat")
    assert TextTask.from_file(path, tiny_models["gpt2"]).fixed_prompts("train", 1) == [expected]


def test_the_text_that_is_scored_is_the_text_of_the_tokens(language_model, write):
    """Sampled tokens, among them any that a random model chooses: the reward sees what people see."""
    task = TextTask.from_file(write("the cat\na dog\nthe city"), language_model)
    prompts = prompts_of(task, task.fixed_prompts("train", 2))
    sample = language_model.sample(prompts, max_tokens=12, group_size=4, generator=torch.Generator().manual_seed(0))
    asked, answers = text_pairs(sample.responses, task.tokenizer)
    assert asked == [text for text in texts(task, "train", 2) for _ in range(4)]
    for ids, answer in zip(sample.responses.to_lists(), answers, strict=True):
        assert answer == language_model.decode([token for token in ids if token != language_model.eos_id])


def test_splits_share_no_prompt_and_hold_all(tiny_models, write):
    prompts = [f"the cat {number}" for number in range(200)]
    task = TextTask.from_file(write("\n".join(prompts)), tiny_models["gpt2"])
    parts = {split: set(texts(task, split, 200)) for split in ("train", "validation", "test")}
    assert sum(len(part) for part in parts.values()) == 200
    assert set.union(*parts.values()) == set(prompts)
    assert 8 <= len(parts["validation"]) <= 35
    assert 8 <= len(parts["test"]) <= 35
    assert set(texts(task, "heldout", 200)) == parts["test"]


def test_a_prompt_stays_in_its_split_when_others_are_added(tiny_models, write):
    few, many = ([f"the cat {number}" for number in range(count)] for count in (100, 200))
    small = TextTask.from_file(write("\n".join(few), "few.txt"), tiny_models["gpt2"])
    large = TextTask.from_file(write("\n".join(many), "many.txt"), tiny_models["gpt2"])
    for split in ("train", "validation", "test"):
        assert set(texts(small, split, 100)) <= set(texts(large, split, 200))


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(3, 12), st.integers(0, 1000))
def test_each_split_has_a_prompt_where_there_are_three(tiny_models, count, start):
    task = TextTask.from_texts([str(start + number) for number in range(count)], tiny_models["gpt2"])
    parts = [{tuple(ids) for ids in task.fixed_prompts(s, count)} for s in ("train", "validation", "test")]
    assert all(parts)
    assert sum(len(part) for part in parts) == count == len(set.union(*parts))


@pytest.mark.parametrize("count", [1, 2])
def test_with_fewer_than_three_prompts_every_split_holds_them_all(tiny_models, write, count):
    prompts = ["the cat", "a dog"][:count]
    task = TextTask.from_file(write("\n".join(prompts)), tiny_models["gpt2"])
    for split in ("train", "validation", "test", "heldout"):
        assert texts(task, split, count) == prompts


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_prompt_that_is_shown_can_be_typed(tiny_models, name, write):
    language_model = tiny_models[name]
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
    with pytest.raises(UsageError, match=r"prompt 'dogs! dogs! .*' has \d+ tokens, more than the 20 of the task"):
        task.encode_prompt("dogs! " * 20)


def test_a_list_of_prompts_is_as_good_as_a_file(tiny_models, write):
    path, prompts = write("the cat\na dog\nthe city"), ["the cat", "a dog", "the city", "a dog"]
    written, given = TextTask.from_file(path, tiny_models["gpt2"]), TextTask.from_texts(prompts, tiny_models["gpt2"])
    for split in ("train", "validation", "test"):
        assert given.fixed_prompts(split, 3) == written.fixed_prompts(split, 3)
    for bad in ("", " \n", None, 3):
        with pytest.raises(UsageError, match=r"prompt 2 is .*; expected is a text that is not blank"):
            TextTask.from_texts(["the cat", bad], tiny_models["gpt2"])
    with pytest.raises(UsageError, match="there are no prompts"):
        TextTask.from_texts([], tiny_models["gpt2"])


def test_draws_come_from_the_generator_and_lists_are_the_callers_own(tiny_models, write):
    task = TextTask.from_file(write("\n".join(f"cat {n}" for n in range(20))), tiny_models["gpt2"])
    one, two = (task.sample_prompts("train", 8, np.random.default_rng(3)) for _ in range(2))
    assert one == two
    task.fixed_prompts("test", 1)[0].clear()
    assert task.fixed_prompts("test", 1)[0]
    assert len(task.fixed_prompts("test", 50)) == 50


def test_what_the_task_says_of_itself(tiny_models, write):
    task = TextTask.from_file(
        write("the cat\n\n  a dog  \nthe cat\n"), tiny_models["gpt2"], response_length=5, beta=0.2
    )
    assert (task.name, task.response_length, task.beta, task.attribute_names) == ("text", 5, 0.2, ())
    assert task.prompt_length == max(len(ids) for ids in task.fixed_prompts("train", 2))
    assert texts(task, "train", 2) == ["the cat", "a dog"]  # stripped, and once each
    prompts = prompts_of(task, task.fixed_prompts("train", 2))
    assert task.gold(Responses.from_lists(prompts, [[1], [2]], 0)) is None


def test_chat_puts_the_prompt_into_the_template(make_model, write):
    language_model = make_model("gpt2")
    path = write("the cat")
    with pytest.raises(UsageError, match="no chat template"):
        TextTask.from_file(path, language_model, chat=True)
    language_model.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[reply]"
    task = TextTask.from_file(path, language_model, chat=True)
    assert texts(task, "train", 1) == ["[user]the cat[reply]"]
    assert task.prompt_text(task.fixed_prompts("train", 1)[0]) == "the cat"
    assert task.encode_prompt("the cat") == task.fixed_prompts("train", 1)[0]


def test_lengths_that_do_not_fit_are_refused(tiny_models, write):
    path = write("the cat sat on the mat")
    with pytest.raises(
        UsageError, match=r"line 1: the prompt 'the cat sat .*more than the 2 that the prompt length allows"
    ):
        TextTask.from_file(path, tiny_models["gpt2"], prompt_length=2)
    with pytest.raises(UsageError, match=r"prompt 2: .* more than the 40 that 'gpt2' has room for beside 24 response"):
        TextTask.from_texts(["a", "cat " * 60], tiny_models["gpt2"])
    with pytest.raises(UsageError, match="takes 64 tokens, so 72 response tokens leave no room for a prompt"):
        TextTask.from_file(path, tiny_models["gpt2"], response_length=72)
    with pytest.raises(UsageError, match="do not fit into the 64"):
        TextTask.from_file(path, tiny_models["gpt2"], prompt_length=50)
    with pytest.raises(UsageError, match="at least 1 token"):
        TextTask.from_file(path, tiny_models["gpt2"], response_length=0)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(st.sampled_from(["the", "cat", "Zürich", "東", "dogs,", "!"]), min_size=1, max_size=5), st.integers(2, 9)
)
def test_long_prompts_keep_their_end_where_that_is_asked_for(language_model, words, limit):
    """The last tokens, after the special ones that the tokenizer begins every text with."""
    text = " ".join(words)
    whole = TextTask.from_texts([text], language_model).fixed_prompts("train", 1)[0]
    task = TextTask.from_texts([text], language_model, prompt_length=limit, truncate_prompts=True)
    (ids,) = task.fixed_prompts("train", 1)
    begins = whole[: int(language_model.name == "llama")]
    assert ids == (whole if len(whole) <= limit else begins + whole[len(begins) - limit :])
    assert task.prompt_text(ids) == (text if len(whole) <= limit else decode(language_model.tokenizer, ids))
    assert task.encode_prompt(task.prompt_text(ids)) == ids == task.encode_prompt(text)


def test_a_chat_template_is_not_cut(make_model):
    language_model = make_model("gpt2")
    language_model.tokenizer.chat_template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    task = TextTask.from_texts(
        ["the cat sat 東東 12", "a dog"], language_model, chat=True, prompt_length=8, truncate_prompts=True
    )
    # "[", "]" and " 12" are 4 tokens, and 4 are left for two characters of three: one is whole.
    assert sorted(map(task.prompt_text, task.fixed_prompts("train", 2))) == ["a dog", "東 12"]
    cut = task.encode_prompt("東 12")
    assert decode(language_model.tokenizer, cut) == "[東 12]"
    assert len(cut) <= 8
    with pytest.raises(UsageError, match="'the cat' cannot be cut to 2 tokens: the chat template takes them all"):
        TextTask.from_texts(["the cat"], language_model, chat=True, prompt_length=2, truncate_prompts=True)


def test_special_tokens_that_leave_no_room_are_named(tiny_models):
    with pytest.raises(UsageError, match="'the cat' cannot be cut to 1 tokens: the special tokens before it take them"):
        TextTask.from_texts(["the cat"], tiny_models["llama"], prompt_length=1, truncate_prompts=True)


def test_prompts_that_are_the_same_once_cut_count_once(tiny_models):
    texts = ["the cat sat", "a dog sat", "the city has a cat", "12"]
    task = TextTask.from_texts(texts, tiny_models["gpt2"], prompt_length=1, truncate_prompts=True)
    parts = [{tuple(ids) for ids in task.fixed_prompts(split, 4)} for split in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 3


def test_a_datasets_own_splits_are_kept(tmp_path, tiny_models):
    parts = {
        "train": [f"the cat {number}" for number in range(40)],
        "test": ["a dog", "the cat 3"],
        "validation": ["a log", "a dog"],
    }
    saved = datasets.DatasetDict({name: datasets.Dataset.from_dict({"prompt": part}) for name, part in parts.items()})
    saved.save_to_disk(tmp_path / "all")
    task = TextTask.from_file(tmp_path / "all", tiny_models["gpt2"])
    # What is tested is not trained on, nor validated on.
    assert texts(task, "test", 2) == texts(task, "heldout", 2) == ["a dog", "the cat 3"]
    assert texts(task, "validation", 1) == ["a log"]
    assert set(texts(task, "train", 40)) == set(parts["train"]) - {"the cat 3"}
    del saved["validation"]
    saved.save_to_disk(tmp_path / "two")
    task = TextTask.from_file(tmp_path / "two", tiny_models["gpt2"])
    validation, train = (set(texts(task, split, 40)) for split in ("validation", "train"))
    assert texts(task, "test", 2) == parts["test"]
    assert validation
    assert validation | train == set(parts["train"]) - {"the cat 3"}
    assert not validation & train
    datasets.DatasetDict({"train": saved["test"], "test": saved["test"]}).save_to_disk(tmp_path / "same")
    with pytest.raises(UsageError, match="no prompts are left to train on"):
        TextTask.from_file(tmp_path / "same", tiny_models["gpt2"])


def test_parquet_gives_the_same_task_as_text(tmp_path, tiny_models, write):
    prompts = [f"the cat {number}" for number in range(20)]
    pq.write_table(pa.table({"prompt": prompts}), tmp_path / "p.parquet")
    ours, theirs = (
        TextTask.from_file(path, tiny_models["gpt2"]) for path in (tmp_path / "p.parquet", write("\n".join(prompts)))
    )
    for split in ("train", "validation", "test"):
        assert ours.fixed_prompts(split, 20) == theirs.fixed_prompts(split, 20)


def test_a_task_that_gives_prompts_that_do_not_fit_is_told_which(tiny_models):
    task = TextTask.from_texts(["the cat", "a dog"], tiny_models["gpt2"])
    for ids in ([], [5] * (task.prompt_length + 1)):
        with pytest.raises(
            UsageError, match=rf"prompt 1 of the task 'text', '.*', has {len(ids)} tokens; expected are 1"
        ):
            prompts_of(task, [[5], ids])


def test_a_prompt_without_tokens_is_named(tiny_models, write):
    """A word-level tokenizer without an unknown token drops what it does not know."""
    tokenizer = Tokenizer(models.BPE(vocab={"<end>": 0, "a": 1}, merges=[]))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    language_model = LanguageModel("letters", tiny_models["gpt2"].model, wrapped)
    with pytest.raises(UsageError, match="line 2: the prompt 'x' has no tokens"):
        TextTask.from_file(write("a\nx"), language_model)


def test_padding_moves_nothing(language_model):
    """Left of the prompt, with a padding token of its own or the end-of-sequence token."""
    task = TextTask.from_texts(["a", "the cat sat on the mat"], language_model, response_length=4)
    env = TextEnv(task, reference=language_model, reward_function=PythonReward(_zeros, task.tokenizer))
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        asked = observation["attention_mask"].astype(bool)
        prompt = observation["input_ids"][asked].tolist()
        assert asked.tolist() == [
            place >= task.prompt_length - len(prompt) for place in range(task.prompt_length)
        ] + 4 * [False]
        assert (observation["input_ids"][~asked] == language_model.pad_id).all()
        for token in (5, 6):
            env.step(token)
        alone = Responses.from_lists(Prompts.from_lists([prompt], 0), [[5, 6]], 0)
        ours, theirs = env.episodes.reference_logprobs[:, :2], language_model.logprobs(alone)
        np.testing.assert_allclose(np.asarray(ours), theirs.numpy(), rtol=1e-5)


def _zeros(prompts, responses):
    return [0.0] * len(responses)


@pytest.mark.slow
def test_smollm2_reads_prompts_plainly_and_as_chat(write):
    language_model = load("smollm2")
    path = write("Once upon a time\nWhat is a cat?")
    assert texts(TextTask.from_file(path, language_model), "train", 2) == ["Once upon a time", "What is a cat?"]
    chat = TextTask.from_file(path, language_model, chat=True)
    assert texts(chat, "train", 2)[1].endswith("user\nWhat is a cat?\nassistant\n")
