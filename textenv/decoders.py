"""One token after another for a batch of responses: what a decoder keeps between two steps.

`PackedDecoder` is for the models whose parts `textenv.architecture` knows, `CachedDecoder` for all
others; both say the same up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from textenv import packed
from textenv.architecture import Architecture, architecture_of, logits_of
from textenv.kv_cache import closed_up, keep_rows, make_room
from textenv.responses import Prompts, parts_of, positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MOST_READ = 3
"""Responses attend to a prompt's keys together while that makes at most so many times as many scores.

Fewer rows of keys, each read once, are worth some scores that nobody looks at; long responses would make many of them.
"""


class Decoder(Protocol):
    """B responses that grow together."""

    logits: Float[Tensor, "B V"]
    """What comes next in each."""
    hidden: Float[Tensor, "B H"]
    """The final hidden states that the logits are made of."""

    def step(self, tokens: Int[Tensor, " b"], rows: Int[Tensor, " b"] | None = None) -> None:
        """Appends a token to each response, and goes on with these only.

        Args:
            tokens: one for each that goes on.
            rows: which of the B these are, in their new order; None is all.
        """
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
    """A decoder that runs a model's parts itself, with one static tensor of keys and one of values a layer.

    Responses to one prompt attend together: they share a row of keys, in which the prompt's stand once and those of a
    step side by side, and a mask keeps them apart.
    """

    def __init__(
        self, model: PreTrainedModel, architecture: Architecture, prompts: Prompts, group_size: int, max_tokens: int
    ) -> None:
        self._model = model
        self._architecture = architecture
        self._length = prompts.ids.shape[1]
        together = attending_together(group_size, self._length, max_tokens)
        self._rows = packed.Rows(len(prompts) * group_size // together, together, None)
        columns = self._length + together * (max_tokens - 1)
        shape = (self._rows.count, architecture.key_heads, columns, architecture.head_width)
        self._keys, self._values = ([torch.empty(shape) for _ in architecture.layers] for _ in range(2))
        last = torch.cat([self._read(prompts, part) for part in parts_of(prompts)])
        self.hidden: Tensor = last.repeat_interleave(group_size, 0)
        self.logits: Tensor = logits_of(model, last).repeat_interleave(group_size, 0)
        self._positions = prompts.mask.sum(dim=1).repeat_interleave(group_size)
        seen = prompts.mask.repeat_interleave(group_size // together, 0)
        self._mask = packed.step_mask(seen, together, max_tokens - 1)

    def step(self, tokens: Int[Tensor, " b"], rows: Int[Tensor, " b"] | None = None) -> None:
        """Appends a token to each response, and goes on with these only."""
        if rows is not None:
            self._keep(rows)
        start, self._length = self._length, self._length + self._rows.length

        def memory(layer: int, *new: Tensor) -> packed.KeysValues:
            held = self._keys[layer], self._values[layer]
            for buffer, each in zip(held, new, strict=True):
                buffer[:, :, start : self._length] = packed.by_heads(self._architecture, self._rows.spread(each))
            return packed.KeysValues(*(buffer[:, :, : self._length] for buffer in held))

        mask = None if self._mask is None else self._mask[..., : self._length]
        self.hidden = packed.append(self._architecture, tokens, self._positions, self._rows, memory, mask)
        self.logits = logits_of(self._model, self.hidden)
        self._positions = self._positions + 1

    def _keep(self, rows: Int[Tensor, " b"]) -> None:
        """Drops all responses but some, and the rows of keys that this leaves empty."""
        self._positions = self._positions[rows]
        count, together = self._rows.count, self._rows.length
        if together == 1:  # Then a row of keys is a response.
            self._keep_keys(rows)
            self._rows = packed.Rows(len(rows), 1, None)
            return
        places = rows if self._rows.index is None else self._rows.index[rows]
        live = torch.zeros(count, dtype=torch.bool).index_fill_(0, places // together, True)
        if not live.all():
            kept = closed_up(live)
            self._keep_keys(kept)
            moved = torch.empty(count, dtype=torch.long).index_copy_(0, kept, torch.arange(len(kept)))
            places, count = moved[places // together] * together + places % together, len(kept)
        self._rows = packed.Rows.at(count, together, places)

    def _keep_keys(self, rows: Int[Tensor, " r"]) -> None:
        self._keys, self._values = (keep_rows(layers, rows) for layers in (self._keys, self._values))
        if self._mask is not None and len(self._mask) > 1:
            self._mask = self._mask[rows]

    def _read(self, prompts: Prompts, part: Int[Tensor, " n"]) -> Float[Tensor, "n H"]:
        """Keeps the keys and values of some prompts for all their responses; the final states at their last tokens."""
        last, cache = packed.prefill(self._architecture, prompts[part])
        first = int(part[0])  # Parts are of neighbours, and a slice is written faster than places one by one.
        for roomy, layers in zip((self._keys, self._values), zip(*cache, strict=True), strict=True):
            for layer, read in zip(roomy, layers, strict=True):
                grouped = layer.view(len(prompts), -1, *layer.shape[1:])
                grouped[first : first + len(part), :, :, : self._length] = read[:, None]
        return last


def attending_together(group_size: int, prompt_length: int, max_tokens: int) -> int:
    """How many responses to a prompt attend together: a divisor of the group's size.

    Each of them reads its neighbours' keys too, though to no use.
    """
    alone = prompt_length + max_tokens
    fit = (k for k in range(group_size, 0, -1) if group_size % k == 0)
    return next(k for k in fit if k == 1 or prompt_length + k * max_tokens <= MOST_READ * alone)


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

    def step(self, tokens: Int[Tensor, " b"], rows: Int[Tensor, " b"] | None = None) -> None:
        """Appends a token to each response, and goes on with these only."""
        if rows is not None:
            self._cache.batch_select_indices(rows)
            self._mask, self._positions = self._mask[rows], self._positions[rows]
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
