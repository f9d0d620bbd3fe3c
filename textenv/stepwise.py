"""Next-token log-probabilities of rows that grow one token at a time, each at its own step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from textenv.decoders import read_prompts
from textenv.decoding import next_token_logprobs
from textenv.responses import Prompts

Rows = npt.NDArray[np.int64]


class StepwiseLogprobs:
    """Encodes each prompt once and then one token a step, with room in the cache for every row.

    Column c of a row always lies at column c of the cache, so that a row can begin anew while
    others go on. A model with other layers than full attention is run over the whole row each time.

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
        prompt_mask = mask[rows, : self.prompt_length]
        output = read_prompts(self.model, Prompts(ids[rows, : self.prompt_length], prompt_mask), logits_to_keep=1)
        filled = output.past_key_values.layers
        if not self._layers:
            self._layers = [_Layer(layer, self.count, ids.shape[1]) for layer in filled]
        for ours, theirs in zip(self._layers, filled, strict=True):
            ours.fill(rows, theirs)
        return torch.log_softmax(output.logits[:, -1].float(), dim=-1)

    def _go_on(self, rows: Rows, ids: Tensor, mask: Tensor, steps: Rows) -> Float[Tensor, "n V"]:
        columns = self.prompt_length + steps - 1
        width = int(columns.max()) + 1
        row_mask = mask[rows, :width]
        cache = DynamicCache(config=self.model.config)
        for layer in self._layers:
            layer.aim(rows, columns)
        cache.layers = list(self._layers)
        output = self.model(
            input_ids=ids[rows, columns][:, None],
            attention_mask=row_mask.long(),
            position_ids=row_mask.sum(dim=1, keepdim=True) - 1,
            past_key_values=cache,
            use_cache=True,
        )
        return torch.log_softmax(output.logits[:, -1].float(), dim=-1)


class _Layer(DynamicLayer):
    """Keys and values of all rows; an update writes one column of each row that was aimed at."""

    def __init__(self, like: DynamicLayer, count: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers gives its constructor no types.
        assert like.keys is not None
        assert like.values is not None
        self.lazy_initialization(like.keys, like.values)
        # Zeros, since what is masked is still multiplied, and 0 · NaN would be NaN.
        self._all_keys, self._all_values = (
            states.new_zeros((count, states.shape[1], columns, states.shape[3])) for states in (like.keys, like.values)
        )

    def fill(self, rows: Rows, prompts: DynamicLayer) -> None:
        """Takes over the prompts of some rows."""
        assert prompts.keys is not None
        assert prompts.values is not None
        self._all_keys[rows, :, : prompts.keys.shape[2]] = prompts.keys
        self._all_values[rows, :, : prompts.values.shape[2]] = prompts.values

    def aim(self, rows: Rows, columns: Rows) -> None:
        """The next update appends to these rows at these columns."""
        self._rows, self._columns = torch.from_numpy(rows), torch.from_numpy(columns)
        # The model reads from these how much there is before the new token.
        width = int(columns.max())
        self.keys, self.values = self._all_keys[:, :, :width], self._all_values[:, :, :width]

    def update(
        self,
        key_states: Float[Tensor, "n H 1 D"],
        value_states: Float[Tensor, "n H 1 D"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "n H L D"], Float[Tensor, "n H L D"]]:
        """Writes one token a row, and returns what the rows aimed at hold."""
        width = int(self._columns.max()) + 1
        self._all_keys[self._rows, :, self._columns] = key_states[:, :, 0]
        self._all_values[self._rows, :, self._columns] = value_states[:, :, 0]
        return self._all_keys[self._rows, :, :width], self._all_values[self._rows, :, :width]
