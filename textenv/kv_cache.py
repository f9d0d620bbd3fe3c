"""Keys and values with room for the tokens to come, from which rows can be dropped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """A full-attention layer that writes into room kept for it, where `DynamicLayer` copies all it holds.

    In-place writing has no gradient: for sampling only.
    """

    def __init__(self, keys: Float[Tensor, "B H L D"], values: Float[Tensor, "B H L D"], room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers gives its constructor no types.
        self.lazy_initialization(keys, values)
        self._buffers = _with_room(keys, room), _with_room(values, room)
        self._length = keys.shape[2]
        self._view()

    def update(
        self,
        key_states: Float[Tensor, "B H n D"],
        value_states: Float[Tensor, "B H n D"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "B H L D"], Float[Tensor, "B H L D"]]:
        """Appends n tokens and returns the keys and values of all tokens so far."""
        start, self._length = self._length, self._length + key_states.shape[2]
        self._buffers[0][:, :, start : self._length] = key_states
        self._buffers[1][:, :, start : self._length] = value_states
        return self._view()

    def batch_select_indices(self, indices: Int[Tensor, " n"]) -> None:
        """Keeps the rows at `indices`, which are different ones."""
        keys, values = keep_rows(self._buffers, indices)
        self._buffers = keys, values
        self._view()

    def _view(self) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, : self._length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values


def closed_up(live: Bool[Tensor, " B"]) -> Int[Tensor, " b"]:
    """The rows that live on, with the last of them in the gaps that the others leave, so that few are moved."""
    count = int(live.sum())
    rows = torch.arange(count)
    rows[~live[:count]] = count + live[count:].nonzero()[:, 0]
    return rows


def keep_rows(buffers: Sequence[Float[Tensor, "B H M D"]], rows: Int[Tensor, " b"]) -> list[Float[Tensor, "b H M D"]]:
    """Drops all rows but some, in the buffers' own memory: only rows that come to another place are copied.

    Args:
        buffers: what is kept of B responses.
        rows: b different ones, in their new order.
    """
    moved = (rows != torch.arange(len(rows))).nonzero()[:, 0]
    for buffer in buffers:
        buffer.index_copy_(0, moved, buffer.index_select(0, rows[moved]))
    return [buffer[: len(rows)] for buffer in buffers]


def make_room(cache: DynamicCache, room: int) -> None:
    """Gives the full-attention layers of a filled cache room for `room` more tokens; others stay."""
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None:
            cache.layers[index] = RoomyLayer(layer.keys, layer.values, room)


def _with_room(states: Float[Tensor, "B H L D"], room: int) -> Float[Tensor, "B H M D"]:
    batch, heads, length, width = states.shape
    buffer = torch.empty((batch, heads, length + room, width), dtype=states.dtype)
    buffer[:, :, :length] = states
    return buffer
