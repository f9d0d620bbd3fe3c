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
    last_linear: int
    """Those of the last layer but for its keys and values: only tokens whose state is asked for go through them."""
    last_attention: int
    """Width of its heads."""

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
        width = shape.width
        return cls(12 * shape.layers * width**2, shape.layers * width, width * shape.vocab, 10 * width**2, width)


# 30 layers of 9 query heads and 3 of keys and values, each 64 wide, and an MLP of three matrices.
SMOLLM2 = Sizes(30 * 576 * (2 * 576 + 2 * 192 + 3 * 1536), 30 * 576, 576 * 49152, 576 * (2 * 576 + 3 * 1536), 576)


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


class Tokens(NamedTuple):
    """What goes through a model in one pass."""

    number: int
    pairs: int
    """Of a token and one that it attends to, itself included; each costs a product with a key and one with a value in
    every layer."""
    states: int
    """Tokens whose final state is asked for."""
    state_pairs: int
    """The pairs of these tokens."""


def forward(sizes: Sizes, tokens: Tokens, *, logits: bool = True) -> int:
    """Operations of one pass.

    Args:
        sizes: of the model.
        tokens: that go through it.
        logits: whether each state that is asked for gives a row of them.
    """
    linear = sizes.linear * tokens.number - sizes.last_linear * (tokens.number - tokens.states)
    attention = sizes.attention * tokens.pairs - sizes.last_attention * (tokens.pairs - tokens.state_pairs)
    return 2 * linear + 4 * attention + (2 * sizes.head * tokens.states if logits else 0)


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
    # Of responses with equal lengths; others have more pairs.
    own_pairs = own * (own + shape.episodes) // (2 * shape.episodes) + own * shape.prompt
    tokens = Tokens(
        number=shape.prompts * shape.prompt + own,
        pairs=shape.prompts * triangle(shape.prompt) + own_pairs,
        states=shape.prompts + own,
        state_pairs=shape.prompts * shape.prompt + own_pairs,
    )
    policy = forward(sizes, tokens)
    values = (networks - 1) * forward(sizes, tokens, logits=False)
    return Passes(2 * policy, values + 3 * shape.epochs * (policy + values))


def triangle(length: int) -> int:
    """Pairs of a token and itself or one before it in a text of so many tokens."""
    return length * (length + 1) // 2


def parameters(shape: Shape) -> int:
    """Of the synthetic model: its linear layers and embeddings, biases and norms left out."""
    sizes = Sizes.of(shape)
    return sizes.linear + sizes.head + shape.width * (shape.prompt + shape.response)
