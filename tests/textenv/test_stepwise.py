"""Growing rows token by token gives what encoding them whole gives."""

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from textenv.decoding import next_token_logprobs
from textenv.stepwise import StepwiseLogprobs

SIZES = {
    "vocab_size": 11,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
SHARED = SIZES | {"num_key_value_heads": 2}


def random_weights(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.4, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    "make",
    [
        lambda: LlamaForCausalLM(LlamaConfig(**SHARED)),
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=16, n_positions=32, n_layer=2, n_head=4)),
        # Its parts are not known: transformers' own forward pass.
        lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
        # Not full attention: the rows are encoded whole.
        lambda: MistralForCausalLM(MistralConfig(**SHARED, sliding_window=4)),
    ],
    ids=["llama", "gpt2", "neox", "sliding window"],
)
def test_rows_at_different_steps_that_begin_anew(make):
    model = random_weights(make())
    rng = np.random.default_rng(0)
    count, prompt_length, length = 4, 3, 5
    stepwise = StepwiseLogprobs(model, count, prompt_length)
    ids = torch.zeros((count, prompt_length + length), dtype=torch.long)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    steps = np.zeros(count, dtype=np.int64)
    fresh = np.ones(count, dtype=bool)
    for _ in range(25):
        for row in np.flatnonzero(fresh):
            size = int(rng.integers(1, prompt_length + 1))
            ids[row], mask[row], steps[row] = 0, False, 0
            ids[row, prompt_length - size : prompt_length] = torch.from_numpy(rng.integers(1, 11, size))
            mask[row, prompt_length - size : prompt_length] = True
        rows = np.sort(rng.choice(count, size=int(rng.integers(1, count + 1)), replace=False))
        found = stepwise(rows, ids, mask, steps[rows])
        torch.testing.assert_close(found, next_token_logprobs(model, ids[rows], mask[rows]), rtol=1e-4, atol=1e-5)
        columns = prompt_length + steps[rows]
        ids[rows, columns] = torch.from_numpy(rng.integers(0, 11, len(rows)))
        mask[rows, columns] = True
        steps[rows] += 1
        ended = np.zeros(count, dtype=bool)
        ended[rows] = (steps[rows] == length) | (rng.random(len(rows)) < 0.2)
        fresh = ended
