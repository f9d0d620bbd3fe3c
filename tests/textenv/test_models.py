"""Loading language models by name, and refusing what cannot or should not be loaded."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from textenv.errors import TextenvError, UsageError
from textenv.models import SHIPPED, list_models, load, load_folder


@pytest.fixture
def folder(tmp_path):
    """A tiny GPT-2 with a tokenizer of four words, saved as users would."""
    words = {"<eos>": 0, "a": 1, "b": 2, "c": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = GPT2Config(vocab_size=4, n_embd=8, n_layer=1, n_head=1, n_positions=16, bos_token_id=None, eos_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_model_loads_frozen_in_fp32(name):
    language_model = load(name)
    assert language_model.name == name
    assert not language_model.model.training
    for weight in language_model.model.parameters():
        assert weight.dtype == torch.float32
        assert not weight.requires_grad
    assert 0 <= language_model.eos_id < language_model.vocab_size


def test_listed_models_are_those_with_a_name_of_their_own():
    assert set(list_models()) == {*SHIPPED, "smollm2"}
    assert all(line and "\n" not in line for line in list_models().values())


def test_a_folder_loads_frozen_in_fp32_whatever_it_was_saved_in(folder):
    language_model = load(str(folder))
    assert next(language_model.model.parameters()).dtype == torch.float32
    assert not any(weight.requires_grad for weight in language_model.model.parameters())
    assert not language_model.model.training
    assert (language_model.eos_id, language_model.pad_id) == (0, 0)
    assert (language_model.vocab_size, language_model.max_length) == (4, 16)
    assert language_model.decode(language_model.encode("a c")) == "a c"
    assert next(language_model.copy().model.parameters()).requires_grad


def test_a_saved_model_loads_equal(folder, tmp_path):
    before = load(str(folder))
    before.save(tmp_path / "again")
    after = load_folder(tmp_path / "again")
    for one, other in zip(before.model.parameters(), after.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'concierge'"):
        load("conciege")


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such/folder", "no/such/folder"])
def test_a_missing_folder_is_said_to_be_missing(name):
    with pytest.raises(UsageError, match="there is no model folder"):
        load(name)


def test_a_file_is_no_model(folder):
    with pytest.raises(UsageError, match="is a file"):
        load(str(folder / "config.json"))


def test_a_folder_without_config_is_no_model(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json"):
        load(str(tmp_path))


def test_a_folder_without_weights_is_no_model(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="holds no weights"):
        load(str(folder))


def test_pickled_weights_are_refused_unopened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(UsageError, match="pickles"):
        load(str(folder))


def test_damaged_weights_are_named(folder):
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(TextenvError, match="could not be loaded"):
        load(str(folder))


def test_a_tokenizer_without_end_of_sequence_is_refused(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="no end-of-sequence token"):
        load(str(folder))


def test_code_of_a_checkpoint_is_never_run(folder):
    """A checkpoint of an unknown type that brings its own classes is refused without a question."""
    (folder / "own.py").write_text("raise SystemExit('the code was run')")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TextenvError, match="could not be loaded"):
        load(str(folder))


def test_missing_weights_are_not_made_up(folder):
    config = BertConfig(vocab_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(folder)
    with pytest.raises(TextenvError, match="lacks"):
        load(str(folder))


def test_weights_of_another_shape_are_not_made_up(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 32}))
    with pytest.raises(UsageError, match=r"other shapes, 'transformer\.wpe\.weight' among them"):
        load(str(folder))


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_hub_that_cannot_be_reached_is_one_clear_message_at_once(tmp_path, offline):
    """In a process of its own, since the hub's client reads its settings once; nobody listens at the address."""
    program = """
import time
from textenv.errors import TextenvError
from textenv.models import folder_of, load
start = time.perf_counter()
try:
    load('textenv-tests/no-such-model')
except TextenvError as error:
    print(error)
assert folder_of('textenv-tests/no-such-model') is None
assert time.perf_counter() - start < 30
"""
    hub = {"HF_HUB_OFFLINE": offline, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    environment = os.environ | hub
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    (message,) = done.stdout.splitlines()
    assert message.startswith("the model 'textenv-tests/no-such-model' is no folder here")
    assert "hf download textenv-tests/no-such-model" in message


@pytest.mark.slow
def test_a_hub_model_in_the_cache_needs_no_network(folder, tmp_path):
    """The cache is laid out as the hub's client does, with one snapshot."""
    cached = tmp_path / "hub" / "models--owner--tiny"
    shutil.copytree(folder, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    program = "from textenv.models import folder_of, load\nprint(load('owner/tiny').name, folder_of('owner/tiny'))"
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == f"owner/tiny {cached / 'snapshots' / 'abc'}\n", done.stderr
        nobody.setblocking(False)
        with pytest.raises(BlockingIOError):  # Not one connection was asked for.
            nobody.accept()
