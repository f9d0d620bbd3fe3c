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
    def of(cls, shape: Shape) -> Sizes:
        """Those of SmolLM2-135M, or of a GPT-2: 4·w² in the attention and 8·w² in the MLP of each layer.

        Raises:
            ValueError: the sizes of the shape's model are known from the model alone.
        """
        if shape.model == "smollm2":
            return SMOLLM2
        if shape.model != "synthetic":
            raise ValueError(f"the sizes of {shape.model!r} are known from the model alone")
        return cls(12 * shape.layers * shape.width**2, shape.layers * shape.width, shape.width * shape.vocab)


# 30 layers of 9 query heads and 3 of keys and values, each 64 wide, and an MLP of three matrices.
SMOLLM2 = Sizes(30 * 576 * (2 * 576 + 2 * 192 + 3 * 1536), 30 * 576, 576 * 49152)


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


def ppo(shape: Shape, networks: int, generated: int) -> Passes:
    """An iteration whose prompts all have one length; where responses differ in theirs, no more than it needs.

    A prompt is read once for all its responses, and a response's last token goes nowhere.
    Old log-probabilities and, on one trunk, old values are known from sampling, so that whoever computes them anew
    reaches less.

    Args:
        shape: the sizes.
        networks: 2 where the value has one of its own.
        generated: response tokens of the iteration.
    """
    sizes = Sizes.of(shape)
    own = generated - shape.episodes
    tokens = shape.prompts * shape.prompt + own
    # Of responses with equal lengths; others have more pairs.
    pairs = triangle(shape.prompt) * shape.prompts + own * (own + shape.episodes) // (2 * shape.episodes)
    pairs += own * shape.prompt
    logits = shape.prompts + own
    policy, trunk = forward(sizes, tokens, pairs, logits), forward(sizes, tokens, pairs, 0)
    values = (networks - 1) * trunk
    return Passes(2 * policy, values + 3 * shape.epochs * (policy + values))


def triangle(length: int) -> int:
    """Pairs of a token and itself or one before it in a text of so many tokens."""
    return length * (length + 1) // 2


def parameters(shape: Shape) -> int:
    """Of the synthetic model: its linear layers and embeddings, biases and norms left out."""
    sizes = Sizes.of(shape)
    return sizes.linear + sizes.head + shape.width * (shape.prompt + shape.response)
