"""Next-token log-probabilities of rows that grow one token at a time, each at its own step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from textenv import packed
from textenv.architecture import Architecture, architecture_of, logits_of
from textenv.decoders import read_prompts
from textenv.decoding import next_token_logprobs
from textenv.responses import Prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = npt.NDArray[np.int64]


class StepwiseLogprobs:
    """Encodes each prompt once and then one token a step, with room in the cache for every row.

    Column c of a row always lies at column c of the cache, so that a row can begin anew while
    others go on. Models of the types of Llama and GPT-2 are run part by part; another model with other layers than
    full attention is run over the whole row each time.

    Args:
        model: a causal language model.
        count: N, the number of rows.
        prompt_length: P, the column at which every response starts.
    """

    def __init__(self, model: PreTrainedModel, count: int, prompt_length: int) -> None:
        self.model = model
        self.count = count
        self.prompt_length = prompt_length
        self._incremental = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
        self._layers: list[_Layer] = []

    @torch.no_grad()
    def __call__(
        self, rows: Rows, ids: Int[Tensor, "N L"], mask: Bool[Tensor, "N L"], steps: Rows
    ) -> Float[Tensor, "n V"]:
        """Log-probabilities of the next token of some rows.

        Args:
            rows: n rows; each was asked for at all of its earlier steps, the first being step 0.
            ids: prompts and tokens so far of all rows.
            mask: which of these there are.
            steps: how many response tokens each of the n rows has.
        """
        if not self._incremental:
            columns = self.prompt_length + int(steps.max())
            return next_token_logprobs(self.model, ids[rows, :columns], mask[rows, :columns])
        fresh = steps == 0
        if fresh.all():
            return self._begin(rows, ids, mask)
        if not fresh.any():
            return self._go_on(rows, ids, mask, steps)
        going_on = self._go_on(rows[~fresh], ids, mask, steps[~fresh])
        logprobs = going_on.new_empty((len(rows), going_on.shape[1]))
        logprobs[~fresh] = going_on
        logprobs[fresh] = self._begin(rows[fresh], ids, mask)
        return logprobs

    def _begin(self, rows: Rows, ids: Tensor, mask: Tensor) -> Float[Tensor, "n V"]:
        prompts = Prompts(ids[rows, : self.prompt_length], mask[rows, : self.prompt_length])
        architecture = architecture_of(self.model)
        if architecture is None:
            output = read_prompts(self.model, prompts, logits_to_keep=1)
            logits = output.logits[:, -1]
            filled = [packed.KeysValues(layer.keys, layer.values) for layer in output.past_key_values.layers]
        else:
            last, filled = packed.prefill(architecture, prompts)
            logits = logits_of(self.model, last)
        if not self._layers:
            self._layers = [_Layer(*layer, self.count, ids.shape[1]) for layer in filled]
        for ours, theirs in zip(self._layers, filled, strict=True):
            ours.fill(rows, *theirs)
        return torch.log_softmax(logits.float(), dim=-1)

    def _go_on(self, rows: Rows, ids: Tensor, mask: Tensor, steps: Rows) -> Float[Tensor, "n V"]:
        columns = self.prompt_length + steps - 1
        for layer in self._layers:
            layer.aim(rows, columns)
        tokens, row_mask = ids[rows, columns], mask[rows, : int(columns.max()) + 1]
        positions = row_mask.sum(dim=1) - 1
        architecture = architecture_of(self.model)
        if architecture is None:
            cache = DynamicCache(config=self.model.config)
            cache.layers = list(self._layers)
            output = self.model(
                input_ids=tokens[:, None],
                attention_mask=row_mask.long(),
                position_ids=positions[:, None],
                past_key_values=cache,
                use_cache=True,
            )
            logits = output.logits[:, -1]
        else:
            states = self._states(architecture, torch.from_numpy(rows), tokens, positions, mask[:, : row_mask.shape[1]])
            logits = logits_of(self.model, states)
        return torch.log_softmax(logits.float(), dim=-1)

    def _states(
        self,
        architecture: Architecture,
        rows: Int[Tensor, " n"],
        tokens: Int[Tensor, " n"],
        positions: Int[Tensor, " n"],
        mask: Bool[Tensor, "N L"],
    ) -> Float[Tensor, "n H"]:
        """Final states at a token that is appended to some rows; the mask covers it."""
        # The keys of most rows are read where they stand, among the others': to copy them would take longer.
        few = 2 * len(rows) < self.count
        read, asking = (rows, packed.Rows(len(rows), 1, None)) if few else (None, packed.Rows.at(self.count, 1, rows))
        mask = mask[rows] if few else mask
        seen = torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))[:, None, None]

        def memory(number: int, *new: Tensor) -> packed.KeysValues:
            layer = self._layers[number]
            layer.write(*(packed.by_heads(architecture, each[:, None]) for each in new))
            return packed.KeysValues(*layer.held(read))

        return packed.append(architecture, tokens, positions, asking, memory, seen)


class _Layer(DynamicLayer):
    """Keys and values of all rows; an update writes one column of each row that was aimed at."""

    def __init__(
        self, keys: Float[Tensor, "n H P D"], values: Float[Tensor, "n H P D"], count: int, columns: int
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers gives its constructor no types.
        self.lazy_initialization(keys, values)
        # Zeros, since what is masked is still multiplied, and 0 · NaN would be NaN.
        self._all_keys, self._all_values = (
            states.new_zeros((count, states.shape[1], columns, states.shape[3])) for states in (keys, values)
        )

    def fill(self, rows: Rows, keys: Float[Tensor, "n H P D"], values: Float[Tensor, "n H P D"]) -> None:
        """Takes over the prompts of some rows."""
        self._all_keys[rows, :, : keys.shape[2]] = keys
        self._all_values[rows, :, : values.shape[2]] = values

    def aim(self, rows: Rows, columns: Rows) -> None:
        """The next update appends to these rows at these columns."""
        self._rows, self._columns = torch.from_numpy(rows), torch.from_numpy(columns)
        # The model reads from these how much there is before the new token.
        width = int(columns.max())
        self.keys, self.values = self._all_keys[:, :, :width], self._all_values[:, :, :width]

    def write(self, keys: Float[Tensor, "n H 1 D"], values: Float[Tensor, "n H 1 D"]) -> None:
        """Appends a token to the rows aimed at."""
        self._all_keys[self._rows, :, self._columns] = keys[:, :, 0]
        self._all_values[self._rows, :, self._columns] = values[:, :, 0]

    def held(self, rows: Tensor | None) -> tuple[Float[Tensor, "n H L D"], Float[Tensor, "n H L D"]]:
        """What some rows hold, or all, up to the last column aimed at."""
        width = int(self._columns.max()) + 1
        keys, values = self._all_keys[:, :, :width], self._all_values[:, :, :width]
        return (keys, values) if rows is None else (keys[rows], values[rows])

    def update(
        self,
        key_states: Float[Tensor, "n H 1 D"],
        value_states: Float[Tensor, "n H 1 D"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "n H L D"], Float[Tensor, "n H L D"]]:
        """Writes one token a row, and returns what the rows aimed at hold."""
        self.write(key_states, value_states)
        return self.held(self._rows)
