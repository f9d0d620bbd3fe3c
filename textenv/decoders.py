"""One token after another for a batch of responses: what a decoder keeps between two steps.

`PackedDecoder` is for the models whose parts `textenv.architecture` knows, `CachedDecoder` for all
others; both say the same up to rounding.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from textenv import packed
from textenv.architecture import Architecture, architecture_of
from textenv.kv_cache import keep_rows, make_room
from textenv.precision import full_precision
from textenv.responses import Prompts, parts_of, positions_of


class Decoder(Protocol):
    """B responses that grow together."""

    logits: Float[Tensor, "B V"]
    """What comes next in each."""
    hidden: Float[Tensor, "B H"]
    """The final hidden states that the logits are made of."""

    def step(self, tokens: Int[Tensor, " B"]) -> None:
        """Appends a token to each response."""
        ...

    def keep(self, rows: Int[Tensor, " b"]) -> None:
        """Goes on with some of the responses only."""
        ...


def decoder(model: PreTrainedModel, prompts: Prompts, group_size: int, max_tokens: int) -> Decoder:
    """Starts `group_size` responses to each prompt.

    Args:
        model: a causal language model; it must not be changed meanwhile.
        prompts: N of them, each read once.
        group_size: k; B = N·k responses, prompt-major.
        max_tokens: the most tokens of a response.
    """
    architecture = architecture_of(model)
    if architecture is None:
        return CachedDecoder(model, prompts, group_size, max_tokens)
    return PackedDecoder(model, architecture, prompts, group_size, max_tokens)


class PackedDecoder:
    """A decoder that runs a model's parts itself, with one static tensor of keys and one of values a layer."""

    def __init__(
        self, model: PreTrainedModel, architecture: Architecture, prompts: Prompts, group_size: int, max_tokens: int
    ) -> None:
        self._head = model.get_output_embeddings()
        self._architecture = architecture
        self._length = prompts.ids.shape[1]
        batch, layers = len(prompts) * group_size, len(architecture.layers)
        shape = (batch, architecture.key_heads, self._length + max_tokens - 1, architecture.head_width)
        self._keys, self._values = ([torch.empty(shape) for _ in range(layers)] for _ in range(2))
        last = torch.cat([self._read(prompts, part, group_size) for part in parts_of(prompts)])
        self.hidden: Tensor = last.repeat_interleave(group_size, 0)
        self.logits: Tensor = self._head(last).repeat_interleave(group_size, 0)
        self._positions = prompts.mask.sum(dim=1).repeat_interleave(group_size)
        self._mask: Tensor | None = None
        if not bool(prompts.mask.all()):
            hidden = functional.pad(~prompts.mask, (0, max_tokens - 1)).repeat_interleave(group_size, 0)
            self._mask = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))[:, None, None]

    def step(self, tokens: Int[Tensor, " B"]) -> None:
        """Appends a token to each response."""
        architecture, batch = self._architecture, len(tokens)
        x = architecture.embed(tokens, self._positions)
        rotation = architecture.rotation and architecture.rotation(self._positions)
        column, self._length = self._length, self._length + 1
        mask = None if self._mask is None else self._mask[..., : self._length]
        heads = (batch, architecture.key_heads, -1, architecture.head_width)
        for layer, all_keys, all_values in zip(architecture.layers, self._keys, self._values, strict=True):
            # Query heads that share keys stand below one another, as further queries.
            queries, keys, values = (each.view(heads) for each in packed.project(architecture, layer, x, rotation))
            all_keys[:, :, column], all_values[:, :, column] = keys[:, :, 0], values[:, :, 0]
            with full_precision():
                attended = functional.scaled_dot_product_attention(
                    queries, all_keys[:, :, : self._length], all_values[:, :, : self._length], attn_mask=mask
                )
            x = packed.finish(layer, x, attended.reshape(batch, -1))
        self._positions = self._positions + 1
        self.hidden = architecture.norm(x)
        self.logits = self._head(self.hidden)

    def keep(self, rows: Int[Tensor, " b"]) -> None:
        """Goes on with some of the responses only, in another order."""
        self.logits, self.hidden, self._positions = self.logits[rows], self.hidden[rows], self._positions[rows]
        self._mask = None if self._mask is None else self._mask[rows]
        self._keys, self._values = (keep_rows(layers, rows) for layers in (self._keys, self._values))

    def _read(self, prompts: Prompts, part: Int[Tensor, " n"], group_size: int) -> Float[Tensor, "n H"]:
        """Keeps the keys and values of some prompts for all their responses; the final states at their last tokens."""
        last, cache = packed.prefill(self._architecture, prompts[part])
        first = int(part[0])  # Parts are of neighbours, and a slice is written faster than places one by one.
        heads = (len(part), 1, self._length, self._architecture.key_heads, self._architecture.head_width)
        for roomy, layers in zip((self._keys, self._values), zip(*cache, strict=True), strict=True):
            for layer, read in zip(roomy, layers, strict=True):
                grouped = layer.view(-1, group_size, *layer.shape[1:])
                grouped[first : first + len(part), :, :, : self._length] = read.view(heads).transpose(2, 3)
        return last


class CachedDecoder:
    """A decoder through transformers' own forward pass and cache, for any causal language model."""

    def __init__(self, model: PreTrainedModel, prompts: Prompts, group_size: int, max_tokens: int) -> None:
        self._model = model
        output = read_prompts(model, prompts, output_hidden_states=True, logits_to_keep=1)
        self.logits: Tensor = output.logits[:, -1].repeat_interleave(group_size, 0)
        self.hidden: Tensor = output.hidden_states[-1][:, -1].repeat_interleave(group_size, 0)
        self._cache = output.past_key_values
        if group_size > 1:
            self._cache.batch_repeat_interleave(group_size)
        make_room(self._cache, max_tokens - 1)
        self._mask = prompts.mask.repeat_interleave(group_size, 0)
        self._positions = self._mask.long().sum(dim=1, keepdim=True)

    def step(self, tokens: Int[Tensor, " B"]) -> None:
        """Appends a token to each response."""
        self._mask = functional.pad(self._mask, (0, 1), value=True)
        output = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask.long(),
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            output_hidden_states=True,
        )
        self.logits, self.hidden = output.logits[:, -1], output.hidden_states[-1][:, -1]
        self._positions = self._positions + 1

    def keep(self, rows: Int[Tensor, " b"]) -> None:
        """Goes on with some of the responses only, in another order."""
        self._cache.batch_select_indices(rows)
        self.logits, self.hidden = self.logits[rows], self.hidden[rows]
        self._mask, self._positions = self._mask[rows], self._positions[rows]


def read_prompts(model: PreTrainedModel, prompts: Prompts, **options: Any) -> Any:
    """The output of transformers' own forward pass over prompts, with a cache of their keys and values.

    Args:
        model: a causal language model, or its trunk.
        prompts: N of them.
        options: more of the model's own.
    """
    return model(
        input_ids=prompts.ids,
        attention_mask=prompts.mask.long(),
        position_ids=positions_of(prompts.mask),
        past_key_values=DynamicCache(config=model.config),
        use_cache=True,
        **options,
    )
