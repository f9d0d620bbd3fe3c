"""One pass over prompts and their responses that works on real tokens only.

The tokens of all rows stand packed in one matrix (n, H) for everything that looks at one token at a
time, which is nearly all of the work; only attention sees rows. A prompt's keys and values are
computed once and attended to by all its responses, with gradients; in the last layer only the
states that are asked for go on. `append` takes responses one token further, without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from textenv.architecture import Architecture, Layer
from textenv.linear import filled, rows_multiplied
from textenv.precision import full_precision, rounded
from textenv.responses import Prompts, Responses, positions_of

MOST_SHARED = 2
"""Responses attend to a prompt's keys together while that makes at most so many times as many scores."""


@dataclass(frozen=True)
class Rows:
    """Where packed tokens stand in rows of equal length."""

    count: int
    length: int
    index: Int[Tensor, " n"] | None
    """Places in the flattened (count, length); None where all are taken, in order."""

    @classmethod
    def of(cls, mask: Bool[Tensor, "R L"]) -> Rows:
        """Those of a mask's tokens."""
        return cls.at(len(mask), mask.shape[1], mask.flatten().nonzero()[:, 0])

    @classmethod
    def at(cls, count: int, length: int, places: Int[Tensor, " n"]) -> Rows:
        """Those of tokens at these places, in any order."""
        return cls(count, length, None if torch.equal(places, torch.arange(count * length)) else places)

    def spread(self, packed: Float[Tensor, "n ..."]) -> Float[Tensor, "R L ..."]:
        """Packed tokens in their rows, zeros elsewhere; differentiable."""
        shape = packed.shape[1:]
        if self.index is not None:
            packed = packed.new_zeros(self.count * self.length, *shape).index_copy(0, self.index, packed)
        return packed.view(self.count, self.length, *shape)

    def pack(self, rows: Float[Tensor, "R L W"]) -> Float[Tensor, "n W"]:
        """Rows' tokens, packed."""
        flat = rows.reshape(self.count * self.length, -1)
        return flat if self.index is None else flat[self.index]


class KeysValues(NamedTuple):
    """Keys and values of one layer in rows, head by head, keys rotated."""

    keys: Float[Tensor, "R G L D"]
    values: Float[Tensor, "R G L D"]


class Prefill(NamedTuple):
    """Prompts that have been read."""

    last: Float[Tensor, "N H"]
    """The final hidden state at each prompt's last token."""
    cache: list[KeysValues]
    """Of each layer, in the rows of the prompts' mask."""


def prefill(architecture: Architecture, prompts: Prompts) -> Prefill:
    """Reads prompts and keeps what responses will attend to."""
    rows, mask = Rows.of(prompts.mask), _prompt_mask(prompts.mask)
    x, rotation = _begin(architecture, prompts.ids[prompts.mask], positions_of(prompts.mask)[prompts.mask])
    count = int(prompts.mask.sum())
    cache = []
    for number, layer in enumerate(architecture.layers):
        queries, keys, values = (each[:count] for each in project(architecture, layer, x, rotation))
        cache.append(KeysValues(*(by_heads(architecture, rows.spread(each)) for each in (keys, values))))
        if number + 1 < len(architecture.layers):
            attended = filled(rows.pack(attend(architecture, rows.spread(queries), *cache[-1], mask)), len(x))
        else:
            last = _last_of(prompts.mask)
            attended = attend(architecture, queries[last][:, None], *cache[-1], mask[:, :, -1:])[:, 0]
            x = x[last]
        x = finish(layer, x, attended)
    return Prefill(architecture.norm(x), cache)


def predicting_states(architecture: Architecture, responses: Responses) -> Float[Tensor, "n H"]:
    """Final hidden states that predict each response token, packed in the order of the mask; differentiable."""
    mask = responses.mask
    inputs = functional.pad(mask[:, 1:], (0, 1))  # The last token of a response predicts nothing.
    states = _states(architecture, responses, inputs, inputs)
    # A response's first token is predicted by its prompt, each further one by the token before it.
    number = torch.empty(mask.shape, dtype=torch.long)
    number[:, 0] = torch.arange(len(mask)) // responses.group_size
    number[:, 1:][mask[:, 1:]] = len(responses.prompts) + torch.arange(int(inputs.sum()))
    return states[number[mask]]


def final_states(architecture: Architecture, responses: Responses) -> Float[Tensor, "B H"]:
    """Final hidden states at the last token of each response, the prompt's where it is empty; differentiable."""
    mask, lengths = responses.mask, responses.lengths
    wanted = mask & (torch.arange(mask.shape[1]) == lengths[:, None] - 1)
    states = _states(architecture, responses, mask, wanted)
    number = torch.arange(len(mask)) // responses.group_size
    number[lengths > 0] = len(responses.prompts) + torch.arange(int(wanted.sum()))
    return states[number]


def _states(
    architecture: Architecture, responses: Responses, inputs: Bool[Tensor, "B T"], wanted: Bool[Tensor, "B T"]
) -> Float[Tensor, "m H"]:
    """Final states at each prompt's last token, then at the wanted tokens among the inputs, row by row.

    After them there may be some that mean nothing.
    """
    prompts, k = responses.prompts.trimmed(), responses.group_size
    width = int(inputs.sum(dim=1).max())
    if width == 0:
        return prefill(architecture, prompts).last
    inputs, wanted = inputs[:, :width], wanted[:, :width]
    prompt_rows, response_rows = Rows.of(prompts.mask), Rows.of(inputs)
    lengths = prompts.mask.long().sum(dim=1)
    split, start = int(lengths.sum()), lengths.repeat_interleave(k)
    positions = torch.cat([positions_of(prompts.mask)[prompts.mask], (start[:, None] + positions_of(inputs))[inputs]])
    ids = torch.cat([prompts.ids[prompts.mask], responses.ids[:, :width][inputs]])
    # Rows that attend to one prompt's keys together, as one long row.
    prompt_width = prompts.ids.shape[1]
    together = k if prompt_width + k * width <= MOST_SHARED * (prompt_width + width) else 1
    prompt_mask = _prompt_mask(prompts.mask)
    response_mask = _response_mask(prompts.mask.repeat_interleave(k // together, 0), inputs, together)

    long = (-1, together * width)
    x, rotation = _begin(architecture, ids, positions)
    parts = [split, len(ids) - split, len(x) - len(ids)]
    last = _last_of(prompts.mask)
    for number, layer in enumerate(architecture.layers):
        queries, keys, values = project(architecture, layer, x, rotation)
        # Parted in one operation each, whose backward pass puts the gradients together in one.
        (reading, asking, _), *pairs = (each.split(parts) for each in (queries, keys, values))
        theirs = [prompt_rows.spread(of_prompts) for of_prompts, _, _ in pairs]
        own = [response_rows.spread(of_responses).reshape(*long, of_responses.shape[1]) for _, of_responses, _ in pairs]
        all_keys, all_values = (
            by_heads(architecture, torch.cat([of_prompts.repeat_interleave(k // together, 0), of_responses], dim=1))
            for of_prompts, of_responses in zip(theirs, own, strict=True)
        )
        asking = response_rows.spread(asking).reshape(*long, asking.shape[1])
        attended = attend(architecture, asking, all_keys, all_values, response_mask)
        prompt = KeysValues(*(by_heads(architecture, each) for each in theirs))
        if number + 1 < len(architecture.layers):
            read = prompt_rows.pack(attend(architecture, prompt_rows.spread(reading), *prompt, prompt_mask))
            attended = filled(torch.cat([read, response_rows.pack(attended)]), len(x))
        else:
            read = attend(architecture, reading[last][:, None], *prompt, prompt_mask[:, :, -1:])[:, 0]
            attended = torch.cat([read, Rows.of(wanted).pack(attended)])
            x = torch.cat([x[last], x[split : len(ids)][wanted[inputs]]])
            count = rows_multiplied(len(x))
            attended, x = filled(attended, count), filled(x, count)
        x = finish(layer, x, attended)
    return architecture.norm(x)


def append(
    architecture: Architecture,
    tokens: Int[Tensor, " n"],
    positions: Int[Tensor, " n"],
    rows: Rows,
    memory: Callable[[int, Tensor, Tensor], KeysValues],
    mask: Float[Tensor, "r 1 Q L"] | None,
) -> Float[Tensor, "n H"]:
    """Final states at one more token of each of n responses.

    Args:
        architecture: of the model.
        tokens: what is appended.
        positions: of these tokens.
        rows: where the responses stand that attend together.
        memory: keeps a layer's new keys and values (n, W), and gives those that the rows attend to.
        mask: what they see of them.
    """
    x, rotation = _begin(architecture, tokens, positions)
    for number, layer in enumerate(architecture.layers):
        queries, *new = (each[: len(tokens)] for each in project(architecture, layer, x, rotation))
        attended = attend(architecture, rows.spread(queries), *memory(number, *new), mask)
        x = finish(layer, x, filled(rows.pack(attended), len(x)))
    return architecture.norm(x)[: len(tokens)]


def _begin(
    architecture: Architecture, ids: Int[Tensor, " n"], positions: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "m H"], tuple[Tensor, Tensor] | None]:
    """First hidden states and the rotation of packed tokens, and of as many after them as are multiplied faster."""
    count = rows_multiplied(len(ids))
    ids, positions = filled(ids, count), filled(positions, count)
    return architecture.embed(ids, positions), architecture.rotation and architecture.rotation(positions)


def project(
    architecture: Architecture, layer: Layer, x: Float[Tensor, "n H"], rotation: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (n, heads·D), keys and values (n, key_heads·D) of packed tokens, rotated."""
    queries, keys, values = (each.float() for each in layer.qkv(rounded(layer.attention_norm(x))))
    if rotation is not None:
        queries, keys = (_rotated(each, architecture.head_width, rotation) for each in (queries, keys))
    return queries, keys, values


def finish(layer: Layer, x: Float[Tensor, "n H"], attended: Float[Tensor, "n W"]) -> Float[Tensor, "n H"]:
    """The rest of a layer after its attention."""
    x = x + layer.attention_output(attended)
    return x + layer.mlp(rounded(layer.mlp_norm(x)))


def attend(
    architecture: Architecture,
    queries: Float[Tensor, "R Q W"],
    keys: Float[Tensor, "R G L D"],
    values: Float[Tensor, "R G L D"],
    mask: Float[Tensor, "r 1 Q L"] | None,
) -> Float[Tensor, "R Q W"]:
    """Attention of rows of queries to rows of keys; query heads that share keys stand below one another.

    Without a mask everything is seen. Always in float32: in bfloat16 its backward pass is many times slower.
    """
    rows, length, width = queries.shape
    shared = architecture.heads // architecture.key_heads
    if shared == 1:
        out = _attention(by_heads(architecture, queries), keys, values, mask)
        return out.transpose(1, 2).reshape(rows, length, width)
    heads = (rows, length, architecture.key_heads, shared, architecture.head_width)
    queries = queries.view(heads).permute(0, 2, 3, 1, 4).flatten(2, 3)
    out = _attention(queries, keys, values, None if mask is None else mask.repeat(1, 1, shared, 1))
    out = out.view(rows, architecture.key_heads, shared, length, architecture.head_width)
    return out.permute(0, 3, 1, 2, 4).reshape(rows, length, width)


def _attention(
    queries: Float[Tensor, "R G Q D"],
    keys: Float[Tensor, "R G L D"],
    values: Float[Tensor, "R G L D"],
    mask: Float[Tensor, "r 1 Q L"] | None,
) -> Float[Tensor, "R G Q D"]:
    with full_precision():
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)


def by_heads(architecture: Architecture, rows: Float[Tensor, "R L W"]) -> Float[Tensor, "R G L D"]:
    """Rows of keys, values or queries, head by head."""
    return rows.view(*rows.shape[:2], -1, architecture.head_width).transpose(1, 2)


def _rotated(x: Float[Tensor, "n W"], head_width: int, rotation: tuple[Tensor, Tensor]) -> Float[Tensor, "n W"]:
    """Rotary position embedding (Su et al. 2021, arXiv:2104.09864), halves of a head paired as in Llama."""
    cos, sin = (each[:, None] for each in rotation)
    heads = x.view(len(x), -1, head_width)
    return torch.addcmul(heads * cos, heads.roll(head_width // 2, 2), sin).flatten(1)


def _last_of(mask: Bool[Tensor, "N P"]) -> Int[Tensor, " N"]:
    """The place of each row's last token among the packed ones."""
    return mask.sum(dim=1).cumsum(dim=0) - 1


def _additive(allowed: Bool[Tensor, "R Q L"], asking: Bool[Tensor, "R Q"]) -> Float[Tensor, "R 1 Q L"]:
    """0 where attention is allowed and -inf elsewhere; queries of padding, whose answers nobody reads, see all."""
    allowed = allowed | ~asking[:, :, None]
    return torch.zeros(allowed.shape).masked_fill_(~allowed, float("-inf"))[:, None]


def _prompt_mask(mask: Bool[Tensor, "N P"]) -> Float[Tensor, "N 1 P P"]:
    causal = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool).tril()
    return _additive(causal & mask[:, None, :], mask)


def _response_mask(
    prompts: Bool[Tensor, "R P"], inputs: Bool[Tensor, "B t"], together: int
) -> Float[Tensor, "R 1 Q L"]:
    """Each token sees its prompt and its own response up to itself; R = B / together, Q = together·t."""
    width = inputs.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    own = torch.block_diag(*[causal.float()] * together).bool().expand(len(prompts), -1, -1)
    theirs = prompts[:, None, :].expand(-1, together * width, -1)
    return _additive(torch.cat([theirs, own], dim=2), inputs.reshape(len(prompts), -1))


def step_mask(prompts: Bool[Tensor, "R P"], together: int, steps: int) -> Float[Tensor, "r 1 Q L"] | None:
    """Each of Q responses sees its prompt and, of the Q tokens of every step, its own.

    L = P + Q·steps; r is R, or 1 where no prompt is padded; None where all is seen.
    """
    if bool(prompts.all()):
        if together == 1:
            return None
        prompts = prompts[:1]
    own = torch.eye(together, dtype=torch.bool).repeat(1, steps).expand(len(prompts), -1, -1)
    allowed = torch.cat([prompts[:, None].expand(-1, together, -1), own], dim=2)
    return _additive(allowed, torch.ones(allowed.shape[:2], dtype=torch.bool))
