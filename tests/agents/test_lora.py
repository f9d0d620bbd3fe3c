from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from agents.lora import Lora, check_modules, with_adapters
from agents.policy import Actor, Computing
from agents.ppo import PPO, PPOConfig
from agents.rlhf import RLHFConfig, prepare
from textenv import enumeration, models
from textenv.architecture import architecture_of
from textenv.enumeration import exact_objective, exact_optimum
from textenv.errors import UsageError
from textenv.language_model import LanguageModel
from textenv.tasks.exact import Exact
from textenv.vector_env import TextVectorEnv


@pytest.fixture(scope="module")
def llama() -> LanguageModel:
    return models.load("exact")


@pytest.fixture(scope="module")
def gpt2(llama: LanguageModel) -> LanguageModel:
    config = GPT2Config(vocab_size=llama.vocab_size, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    return LanguageModel("gpt2", model, llama.tokenizer)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_begin_at_nothing_share_the_weights_and_alone_are_trained(
    kind: str, request: pytest.FixtureRequest
) -> None:
    base: LanguageModel = request.getfixturevalue(kind)
    before, state = copy.deepcopy(base.model.state_dict()), torch.get_rng_state()
    adapted = with_adapters(base, Lora(2, 4.0), generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert architecture_of(adapted.model) is not None  # The fast path knows it still.
    prompts = enumeration.all_prompts(Exact())
    sample = base.sample(prompts, max_tokens=5, group_size=4, generator=generator())
    torch.testing.assert_close(adapted.logprobs(sample.responses), sample.logprobs, atol=1e-5, rtol=1e-5)

    theirs = {weight.data_ptr() for weight in base.model.parameters()}
    own = [weight for weight in adapted.model.parameters() if weight.data_ptr() not in theirs]
    assert own == [weight for weight in adapted.model.parameters() if weight.requires_grad]
    assert all("lora_" in name for name, weight in adapted.model.named_parameters() if weight.requires_grad)

    actor = Actor(adapted, Computing("float32", 1))
    optimizer = torch.optim.SGD(own, lr=1.0)
    actor(sample.responses).sum().backward()
    optimizer.step()
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.state_dict().items())
    assert not torch.allclose(adapted.logprobs(sample.responses), sample.logprobs, atol=1e-3)
    torch.testing.assert_close(base.logprobs(sample.responses), sample.logprobs, atol=1e-5, rtol=1e-5)


def test_adapters_weigh_alpha_by_rank(llama: LanguageModel) -> None:
    """What an adapted layer says, by hand: W x + alpha / rank · B A x."""
    adapted = with_adapters(llama, Lora(2, 6.0, "q_proj"), generator())
    layer = adapted.model.base_model.layers[0].self_attn.q_proj
    (first,), (second,) = layer.lora_A.values(), layer.lora_B.values()
    torch.nn.init.normal_(second.weight, generator=generator())
    x = torch.randn(3, first.weight.shape[1], generator=generator())
    expected = x @ layer.base_layer.weight.T + 3 * (x @ first.weight.T) @ second.weight.T
    torch.testing.assert_close(layer(x), expected)


def test_named_modules_alone_get_adapters(llama: LanguageModel, gpt2: LanguageModel) -> None:
    for base, modules, found in ((llama, "q_proj, v_proj", {"q_proj", "v_proj"}), (gpt2, "c_attn", {"c_attn"})):
        adapted = with_adapters(base, Lora(1, 1.0, modules), generator())
        names = {
            name.split(".lora_")[0].rpartition(".")[2]
            for name, _ in adapted.model.named_parameters()
            if "lora_" in name
        }
        assert names == found
    every = with_adapters(llama, Lora(1, 1.0), generator())
    assert not any("lm_head" in name for name, _ in every.model.named_parameters() if "lora_" in name)


def test_modules_that_are_not_there_are_refused_with_those_that_are(llama: LanguageModel) -> None:
    with pytest.raises(
        UsageError, match=r"unknown linear layer of 'exact' for lora_modules 'q_prj'. Did you mean 'q_proj'"
    ):
        check_modules(llama, Lora(2, 1.0, "v_proj,q_prj"))
    with pytest.raises(UsageError, match="lora_modules 'c_attn'"):  # Before a reward is learned.
        prepare(RLHFConfig(task="exact", algorithm=PPOConfig(lora_rank=2, lora_modules="c_attn")))


@pytest.mark.slow
def test_learns_with_adapters() -> None:
    env = TextVectorEnv("exact", kl="full")
    agent = PPO(env, PPOConfig(lora_rank=4, learning_rate=5e-3, n_prompts=4, group_size=16), 0)
    judged = (env.reference, env.reward_function, env.beta)
    reference = copy.deepcopy(env.reference.model.state_dict())
    agent.learn(8_000)
    before, after = (
        exact_objective(env.task, model, *judged).objective for model in (env.reference, agent.language_model)
    )
    best = exact_optimum(env.task, *judged).value.objective
    assert (after - before) / (best - before) > 0.5
    assert all(torch.equal(weight, reference[name]) for name, weight in env.reference.model.state_dict().items())
