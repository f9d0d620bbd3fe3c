"""Operations are counted where they are executed, forward and backward."""

import torch
from torch.nn import functional

from benchmarks.speed.executed import Operations
from textenv import linear


def test_products_and_fused_attention_are_counted_forward_and_backward():
    """2 rows of 4 heads, 8 queries and keys, 16 wide: 2·(2·4·8·8·16) operations forward and 5 such products back."""
    queries, keys = (torch.randn(2, 4, 8, 16, requires_grad=True) for _ in range(2))
    layer = torch.nn.Linear(3, 5)
    with Operations() as counted:
        functional.scaled_dot_product_attention(queries, keys, keys).sum().backward()
        with torch.inference_mode():
            layer(torch.zeros(7, 3))
    assert counted.count == 7 * (2 * 2 * 4 * 8 * 8 * 16) + 2 * 7 * 3 * 5


def test_a_linear_layer_of_onednn_is_counted(monkeypatch):
    monkeypatch.setattr(linear, "onednn_is_faster", lambda: True)
    x = torch.zeros(20, 3, requires_grad=True)
    with Operations() as counted:
        linear.linear(torch.nn.Linear(3, 5), x).sum().backward()
    assert counted.count == 3 * 2 * 20 * 3 * 5
