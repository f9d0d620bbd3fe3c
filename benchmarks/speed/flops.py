"""How many floating-point operations an iteration needs, counted by formula: the useful ones only, no padding.

A product of (m, n) and (n, p) is 2·m·n·p operations. Norms, activations, rotations and softmax are left out,
being of lower order, as torch's own counter does. Backward is twice forward.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.speed.plan import Shape


class Sizes(NamedTuple):
    """What of a decoder the count depends on."""

    linear: int
    """Weights of the linear layers, without the head."""
    attention: int
    """Width of all heads of all layers together."""
    head: int
    """Weights of the head that gives the logits."""

    @classmethod
    def of_synthetic(cls, shape: Shape) -> Sizes:
        """Those of a GPT-2: 4·w² in the attention and 8·w² in the MLP of each layer."""
        return cls(12 * shape.layers * shape.width**2, shape.layers * shape.width, shape.width * shape.vocab)


class Work(NamedTuple):
    """What is computed and what has to be read for it."""

    flops: int
    bytes: int = 0


class Passes(NamedTuple):
    """The least that an iteration of PPO needs."""

    rollout: int
    """Sampling once and the reference once: what comes before the responses are paid."""
    update: int
    """Forward and backward of every network in every epoch, and a network for the value once before them."""


def forward(sizes: Sizes, tokens: int, pairs: int, logits: int) -> int:
    """Operations of one pass.

    Args:
        sizes: of the model.
        tokens: that go through it.
        pairs: of a token and one that it attends to, itself included; each costs a product with a key and one with
            a value in every layer.
        logits: rows of them.
    """
    return 2 * sizes.linear * tokens + 4 * sizes.attention * pairs + 2 * sizes.head * logits


def ppo(shape: Shape, networks: int) -> Passes:
    """An iteration with a synthetic model, whose prompts and responses have all one length.

    A prompt is read once for all its responses, and a response's last token goes nowhere.
    Old log-probabilities and, on one trunk, old values are known from sampling, so that whoever computes them anew
    reaches less.

    Args:
        shape: the sizes.
        networks: 2 where the value has one of its own.
    """
    sizes = Sizes.of_synthetic(shape)
    own = shape.response - 1
    tokens = shape.prompts * shape.prompt + shape.episodes * own
    pairs = triangle(shape.prompt) * shape.prompts + shape.episodes * (triangle(own) + own * shape.prompt)
    logits = shape.prompts + shape.episodes * own
    policy, trunk = forward(sizes, tokens, pairs, logits), forward(sizes, tokens, pairs, 0)
    values = (networks - 1) * trunk
    return Passes(2 * policy, values + 3 * shape.epochs * (policy + values))


def triangle(length: int) -> int:
    """Pairs of a token and itself or one before it in a text of so many tokens."""
    return length * (length + 1) // 2


def parameters(shape: Shape) -> int:
    """Of the synthetic model: its linear layers and embeddings, biases and norms left out."""
    sizes = Sizes.of_synthetic(shape)
    return sizes.linear + sizes.head + shape.width * (shape.prompt + shape.response)
