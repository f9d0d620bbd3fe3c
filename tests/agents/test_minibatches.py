from __future__ import annotations

from collections import Counter
from itertools import islice

import torch

from agents.minibatches import minibatches
from agents.ppo import PPOConfig
from textenv import enumeration, models
from textenv.tasks.exact import Exact


def test_an_epoch_has_every_prompt_once_with_all_its_responses_and_numbers() -> None:
    prompts = enumeration.all_prompts(Exact())
    sample = models.load("exact").sample(
        prompts, max_tokens=5, group_size=3, generator=torch.Generator().manual_seed(0)
    )
    responses = sample.responses
    generator = torch.Generator().manual_seed(1)
    orders = []
    three = iter(minibatches(responses, PPOConfig(n_epochs=3, n_minibatches=3), generator))
    for _ in range(3):
        batches = list(islice(three, 3))
        assert [len(batch.responses.prompts) for batch in batches] == [2, 1, 1]
        rows = torch.cat([batch.rows for batch in batches])
        assert Counter(rows.tolist()) == Counter(range(12))
        orders.append(rows.tolist())
        for batch in batches:
            assert batch.responses.to_lists() == [responses.to_lists()[row] for row in batch.rows]
            logprobs = batch.cut(sample.logprobs)
            assert logprobs.shape == batch.responses.ids.shape
            assert batch.cut(responses.lengths).tolist() == batch.responses.lengths.tolist()
            assert logprobs.sum(dim=1).tolist() == sample.logprobs[batch.rows].sum(dim=1).tolist()
    assert orders[0] != orders[1] or orders[1] != orders[2]
    assert not list(three)
