"""What the products of a model are worth."""

from __future__ import annotations

from dataclasses import replace

from transformers import GPT2Config, GPT2Model

from textenv import models
from textenv.products import decoding_precision, worthwhile_threads


def wide_model() -> GPT2Model:
    return GPT2Model(GPT2Config(vocab_size=8, n_positions=8, n_embd=576, n_layer=1, n_head=9))


def test_each_thread_gets_a_million_operations_of_a_product() -> None:
    # A layer multiplies with 4·160² + 3·160·448 weights in 7 matrices: on average 2·64·45,349 operations.
    model = models.load("concierge").model
    assert [worthwhile_threads(model, 64, cores) for cores in (1, 2, 64)] == [1, 2, 5]
    assert worthwhile_threads(model, 1, 64) == 1


def test_a_wider_model_is_worth_more_threads() -> None:
    # 12·576² weights in 4 matrices: on average 2·64·995,328 operations.
    wide = wide_model()
    assert worthwhile_threads(wide, 64, 256) == 121


def test_only_large_products_are_worth_rounding_in_decoding() -> None:
    small = models.load("concierge")
    wide = replace(small, model=wide_model())
    assert decoding_precision(small, "bfloat16") == decoding_precision(small, "float32") == "float32"
    assert decoding_precision(wide, "bfloat16") == "bfloat16"
    assert decoding_precision(wide, "float32") == "float32"
