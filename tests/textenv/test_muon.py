"""One optimiser of two, checked against the two themselves."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from textenv import models
from textenv.muon import SCALE, MuonAdamW


@pytest.fixture
def model():
    return models.load("exact").copy().model


def loss_of(model, factor=1.0):
    ids = torch.tensor([[2, 3, 4, 1]])
    return factor * model(input_ids=ids, labels=ids).loss


def test_the_layers_matrices_take_muons_steps_and_the_rest_adamws(model):
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    MuonAdamW(model, weight_decay=0.0).step(loss_of(model), 0.01, max_grad_norm=1.0)
    for name, weight in model.named_parameters():
        moved = weight.detach() - before[name]
        if ".layers." in name and weight.ndim == 2:
            # An orthogonalised step: all its singular values are nearly one, scaled to AdamW's size.
            values = torch.linalg.svdvals(moved) / (SCALE * 0.01 * 0.2 * max(weight.shape) ** 0.5)
            assert 0.6 < float(values[0]) < 1.3
        else:
            # AdamW's first step is the rate itself, wherever there is a gradient.
            assert float(moved.abs().max()) == pytest.approx(0.01, rel=1e-2)


def test_a_gradient_that_is_not_finite_moves_nothing(model):
    before = [weight.detach().clone() for weight in model.parameters()]
    norm = MuonAdamW(model, weight_decay=0.1).step(loss_of(model, float("nan")), 0.01, max_grad_norm=1.0)
    assert not norm.isfinite()
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))
    assert all(weight.grad is None for weight in model.parameters())


def test_embeddings_and_heads_of_another_architecture_are_adamws():
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    optimizer = MuonAdamW(gpt2, weight_decay=0.0)
    muons = {id(weight) for group in optimizer._muon._groups for weight in group}
    names = {name for name, weight in gpt2.named_parameters() if id(weight) in muons}
    block = "transformer.h.0."
    assert names == {block + name for name in ("attn.c_attn.weight", "attn.c_proj.weight",
                                               "mlp.c_fc.weight", "mlp.c_proj.weight")}  # fmt: skip
