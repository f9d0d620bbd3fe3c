import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from reward_models.reward_model import BIAS_KEY, GAIN_KEY, RewardModel
from textenv import models
from textenv.errors import TextenvError, UsageError
from textenv.language_model import LanguageModel
from textenv.responses import Prompts, Responses

PAD, EOS = 0, 1


@pytest.fixture(scope="module")
def language_model() -> LanguageModel:
    return models.load("exact")


@pytest.fixture
def reward_model(language_model: LanguageModel) -> RewardModel:
    return RewardModel.from_language_model(language_model, torch.Generator().manual_seed(0))


def some_responses(k: int = 2) -> Responses:
    prompts = Prompts.from_lists([[3], [2, 4], [5, 6, 2]], PAD)
    texts = [[2, 3, EOS], [4], [2, 2, 2, 2, 2], [EOS], [6, 5], [3, 3, 3, EOS]]
    return Responses.from_lists(prompts, texts[: 3 * k], PAD)


def plain_logit(model: torch.nn.Module, prompt: list[int], response: list[int]) -> Tensor:
    return model(input_ids=torch.tensor([prompt + response])).logits[0, 0].detach()


def test_scores_are_those_of_plain_transformers_row_by_row(reward_model):
    responses = some_responses()
    prompts = [prompt for prompt in responses.prompts.to_lists() for _ in range(2)]
    whole = [text if text[-1] == EOS else [*text, EOS] for text in responses.to_lists()]
    expected = [plain_logit(reward_model.model, *row) for row in zip(prompts, whole, strict=True)]
    torch.testing.assert_close(reward_model(responses), torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_what_counts_is_told_by_the_mask_not_by_its_id(reward_model):
    prompts = Prompts.from_lists([[3, 4]], PAD)
    with_pad = reward_model(Responses.from_lists(prompts, [[2, PAD]], PAD))
    shorter = reward_model(Responses.from_lists(prompts, [[2]], PAD))
    longer = Responses(prompts, torch.tensor([[2, 5, EOS]]), torch.tensor([[True, False, False]]))
    assert not torch.allclose(with_pad, shorter)
    torch.testing.assert_close(reward_model(longer), shorter, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("cut_off", [[2, 3, 4], [2], []])
def test_a_response_that_was_cut_off_is_scored_as_if_it_ended_there(reward_model, cut_off):
    prompts = Prompts.from_lists([[3, 4]], PAD)
    both = Responses.from_lists(prompts, [cut_off, [*cut_off, EOS]], PAD)
    one, other = reward_model(both)
    assert float(one) == pytest.approx(float(other), abs=1e-6)
    one, other = reward_model.scores(both).detach()
    assert float(one) == pytest.approx(float(other), abs=1e-6)


def test_a_response_without_room_is_scored_with_its_last_token_replaced(language_model):
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=7, n_embd=8, n_layer=1, n_head=2, n_positions=5, pad_token_id=PAD))
    model = RewardModel.from_language_model(
        LanguageModel("gpt2", gpt2, language_model.tokenizer), torch.Generator().manual_seed(0)
    )
    full = Responses.from_lists(Prompts.from_lists([[3, 4], [5]], PAD), [[2, 5, 6], [2, 5, 6]], PAD)
    expected = [plain_logit(model.model, [3, 4], [2, 5, EOS]), plain_logit(model.model, [5], [2, 5, 6, EOS])]
    torch.testing.assert_close(model(full), torch.stack(expected), atol=1e-6, rtol=1e-6)


def test_neither_company_nor_chunks_change_a_score(reward_model):
    responses = some_responses()
    scores = reward_model(responses)
    for row in range(len(responses)):
        alone = responses.ungrouped().groups(torch.tensor([row]))
        torch.testing.assert_close(reward_model(alone), scores[row : row + 1], atol=1e-5, rtol=1e-5)
    many = Responses(responses.prompts.repeat(100), responses.ids.repeat(100, 1), responses.mask.repeat(100, 1))
    assert reward_model(many).shape == (600,)
    grouped = responses.groups(torch.arange(3).repeat(150))
    torch.testing.assert_close(reward_model(grouped), scores.repeat(150), atol=1e-5, rtol=1e-5)


def test_gradients_reach_the_whole_trunk_and_only_through_scores(reward_model):
    responses = some_responses()
    assert not reward_model(responses).requires_grad
    reward_model.scores(responses).pow(2).sum().backward()
    for name, parameter in reward_model.model.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_weights_are_copied_and_the_head_is_the_generators(language_model):
    before = torch.random.get_rng_state()
    one, same, other = (
        RewardModel.from_language_model(language_model, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.model.score.weight, same.model.score.weight)
    assert not torch.equal(one.model.score.weight, other.model.score.weight)
    with torch.no_grad():
        originals = language_model.model.base_model.parameters()
        for copied, original in zip(one.model.base_model.parameters(), originals, strict=True):
            assert torch.equal(copied, original)
            assert copied.data_ptr() != original.data_ptr()
    assert all(parameter.requires_grad for parameter in one.model.parameters())


def test_the_head_is_normal_with_variance_one_over_width_plus_one(language_model):
    generator = torch.Generator().manual_seed(0)
    weights = torch.cat(
        [RewardModel.from_language_model(language_model, generator).model.score.weight.flatten() for _ in range(40)]
    ).detach()
    width = language_model.model.config.hidden_size
    # The standard error of a standard deviation is σ/√(2n).
    expected = 1 / math.sqrt(width + 1)
    assert abs(float(weights.std()) - expected) < 4 * expected / math.sqrt(2 * len(weights))
    assert abs(float(weights.mean())) < 4 * expected / math.sqrt(len(weights))


def test_normalised_scores_have_mean_zero_and_deviation_one_within_a_prompt(reward_model):
    responses = some_responses()
    raw = reward_model(responses)
    reward_model.normalise(responses)
    scores = reward_model(responses)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-5)
    # With two responses to a prompt its variance is half of their squared difference.
    deviation = ((raw.view(3, 2)[:, 0] - raw.view(3, 2)[:, 1]).square() / 2).mean().sqrt()
    torch.testing.assert_close(scores, (raw - raw.mean()) / deviation, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reward_model.scores(responses), scores, atol=1e-5, rtol=1e-5)
    reward_model.normalise(responses)  # again changes nothing
    torch.testing.assert_close(reward_model(responses), scores, atol=1e-5, rtol=1e-5)


def test_scores_that_do_not_vary_cannot_be_normalised(reward_model):
    with torch.no_grad():
        reward_model.model.score.weight.zero_()
    with pytest.raises(TextenvError, match="cannot be normalised"):
        reward_model.normalise(some_responses())
    with torch.no_grad():
        reward_model.model.score.weight.fill_(math.nan)
    with pytest.raises(TextenvError, match="cannot be normalised"):
        reward_model.normalise(some_responses())


def test_a_saved_model_is_the_same_for_us_and_for_plain_transformers(reward_model, language_model, tmp_path):
    responses = some_responses()
    reward_model.normalise(responses)
    folder = tmp_path / "reward_model"
    reward_model.save(folder)
    loaded = RewardModel.load(folder, language_model.tokenizer)
    assert torch.equal(loaded(responses), reward_model(responses))
    assert (loaded.gain, loaded.bias) == (reward_model.gain, reward_model.bias)
    assert (folder / "model.safetensors").is_file()

    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    # No padding trap here: the response ends in the end-of-sequence token, which is not the padding.
    prompt, response = responses.prompts.to_lists()[0], responses.to_lists()[0]
    text = tokenizer.decode(prompt + response)
    with torch.no_grad():
        logit = plain(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits[0, 0]
    score = config[GAIN_KEY] * float(logit) + config[BIAS_KEY]
    assert plain.config.num_labels == 1
    assert score == pytest.approx(float(reward_model(responses)[0]), abs=1e-5)


def test_folders_that_hold_no_reward_model_are_refused(reward_model, language_model, tmp_path):
    with pytest.raises(UsageError, match=r"no config\.json"):
        RewardModel.load(tmp_path / "nothing")
    language_model.save(tmp_path / "lm")
    with pytest.raises(UsageError, match="sequence classifier with num_labels=1"):
        RewardModel.load(tmp_path / "lm")
    reward_model.save(tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UsageError, match="cannot be loaded as a reward model"):
        RewardModel.load(tmp_path / "damaged")
    weights.unlink()
    with pytest.raises(UsageError, match="cannot be loaded as a reward model"):
        RewardModel.load(tmp_path / "damaged")
    (tmp_path / "damaged" / "config.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be loaded as a reward model"):
        RewardModel.load(tmp_path / "damaged")


@pytest.mark.parametrize("head", [None, torch.zeros(2, 64)])
def test_a_head_that_is_missing_or_of_another_shape_is_not_made_up(reward_model, tmp_path, head):
    reward_model.save(tmp_path / "headless")
    file = tmp_path / "headless" / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name != "score.weight"}
    save_file(tensors if head is None else tensors | {"score.weight": head}, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"'score\.weight' among them"):
        RewardModel.load(tmp_path / "headless")


@pytest.mark.parametrize("model_type", ["llama", "own"])
def test_code_of_a_reward_model_is_never_run(reward_model, tmp_path, monkeypatch, model_type):
    """Not even where transformers would ask, and whoever sits there says yes."""
    reward_model.save(tmp_path / "r")
    (tmp_path / "r" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: ...\n")
    file = tmp_path / "r" / "config.json"
    auto_map = {"AutoConfig": "own.C", "AutoModelForSequenceClassification": "own.C", "AutoTokenizer": ["own.C", None]}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": model_type, "auto_map": auto_map}))
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    if model_type == "own":
        with pytest.raises(UsageError, match="cannot be loaded as a reward model"):
            RewardModel.load(tmp_path / "r")
    else:
        RewardModel.load(tmp_path / "r")
    assert not (tmp_path / "ran").exists()


def test_the_end_of_sequence_is_the_policys_and_must_be_known(reward_model, language_model, tmp_path):
    reward_model.save(tmp_path / "r")
    config = json.loads((tmp_path / "r" / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (tmp_path / "r" / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = RewardModel.load(tmp_path / "r", language_model.tokenizer)
    torch.testing.assert_close(loaded(some_responses()), reward_model(some_responses()))
    with pytest.raises(UsageError, match=r"no end-of-sequence token.*set `eos_token`"):
        RewardModel.load(tmp_path / "r")


def test_another_vocabulary_is_refused(reward_model, tmp_path):
    reward_model.save(tmp_path / "r")
    other = AutoTokenizer.from_pretrained(tmp_path / "r")
    other.add_tokens(["z"])
    with pytest.raises(UsageError, match="another vocabulary"):
        RewardModel.load(tmp_path / "r", other)


def test_other_kinds_of_decoder_work_and_an_encoder_decoder_says_so(language_model):
    small = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=7, bos_token_id=EOS, eos_token_id=EOS, **small)).eval()
    model = RewardModel.from_language_model(LanguageModel("gpt2", gpt2, language_model.tokenizer), torch.Generator())
    row = some_responses().to_lists()[0]
    expected = plain_logit(model.model, [3], row)
    torch.testing.assert_close(model(some_responses())[0], expected, atol=1e-5, rtol=1e-5)

    grouped = LlamaConfig(vocab_size=7, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    half = LlamaForCausalLM(grouped).to(torch.bfloat16)
    model = RewardModel.from_language_model(LanguageModel("half", half, language_model.tokenizer), torch.Generator())
    assert model(some_responses()).dtype == torch.float32

    t5 = T5ForConditionalGeneration(T5Config(vocab_size=7, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(UsageError, match="no reward model can be made of it"):
        RewardModel.from_language_model(LanguageModel("t5", t5, language_model.tokenizer), torch.Generator())
