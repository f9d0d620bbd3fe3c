"""What TRL's trainers are given pays as the reward function does; the trainers themselves are run where TRL is."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.speed.plan import CONCIERGE
from benchmarks.speed.trl_trainers import Laps, RewardModel, text_reward
from benchmarks.speed.workload import Workload


class Heard:
    """A clock that writes down what it is told."""

    def __init__(self):
        self.paid_tokens, self.laps = 0, []

    def start(self):
        self.laps.append("start")

    def paid(self, tokens):
        self.paid_tokens += tokens

    def lap(self, tokens, model):
        self.laps.append((tokens, model))


@pytest.fixture(scope="module")
def sampled():
    """A workload, with responses of several lengths to padded prompts."""
    workload = Workload.of(CONCIERGE)
    generator = torch.Generator().manual_seed(0)
    responses = workload.language_model.sample(workload.prompts(6), max_tokens=24, generator=generator).responses
    assert not responses.prompts.mask.all()
    assert not responses.mask.all()
    return workload, responses


def test_ppos_reward_model_pays_what_the_reward_does(sampled):
    """TRL gives it rows padded on both sides, and reads the number at the response's last token."""
    workload, responses = sampled
    width = CONCIERGE.response - responses.ids.shape[1]
    ids = torch.cat([responses.prompts.ids, torch.nn.functional.pad(responses.ids, (0, width))], dim=1)
    model = RewardModel(workload.reward, CONCIERGE.response)
    backbone = getattr(model, model.base_model_prefix)
    scores = model.score(backbone(input_ids=ids, attention_mask=ids != 0, use_cache=False).hidden_states[-1])
    assert scores.shape == (*ids.shape, 1)
    torch.testing.assert_close(scores[:, -1, 0], workload.reward(responses))


def test_the_reward_of_texts_pays_what_the_reward_does(sampled):
    """And tells the clock of the tokens."""
    workload, responses = sampled
    heard = Heard()
    tokenizer = workload.task.tokenizer
    prompts = [" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in responses.prompts.to_lists()]
    scores = text_reward(workload, heard)(prompts=prompts, completion_ids=responses.to_lists(), completions=None)
    torch.testing.assert_close(torch.tensor(scores), workload.reward(responses))
    assert heard.paid_tokens == responses.mask.sum()


def test_an_iteration_is_so_many_steps():
    heard = Heard()
    laps = Laps(heard, steps=3, tokens=7)
    laps.on_train_begin(None, None, None)
    for step in range(1, 8):
        laps.on_step_end(None, SimpleNamespace(global_step=step), None)
    assert heard.laps == ["start", (7, None), (7, None)]
