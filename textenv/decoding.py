"""Running a causal language model over prompts and responses, without doing a prompt twice.

A prompt's keys and values are computed once and shared by all its responses, in sampling and,
with gradients, in training alike. Any transformers causal LM works: only its forward call, its
cache and its `position_ids` are used, and positions always come from the mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from textenv.kv_cache import make_room
from textenv.responses import Prompts, Responses

ROWS_AT_ONCE = 1024
"""Responses that go through a model together at most; bounds the memory of the cache."""

LOGITS_AT_ONCE = 2**26
"""Numbers of logits that are held together at most, 256 MiB in float32; with their softmax, several times that."""


class Outputs(NamedTuple):
    """What a model says at each response position t, before it has seen token t."""

    logits: Float[Tensor, "B T V"]
    hidden: Float[Tensor, "B T H"]


class Sample(NamedTuple):
    """Sampled responses and the log-probability of each token under the sampling distribution."""

    responses: Responses
    logprobs: Float[Tensor, "B T"]


def position_ids(mask: Bool[Tensor, "N L"]) -> Int[Tensor, "N L"]:
    """Positions that count real tokens only, so that left padding moves nothing."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def _prefill(model: PreTrainedModel, prompts: Prompts, *, hidden: bool) -> tuple[Tensor, Tensor | None, DynamicCache]:
    output = model(
        input_ids=prompts.ids,
        attention_mask=prompts.mask.long(),
        position_ids=position_ids(prompts.mask),
        past_key_values=DynamicCache(config=model.config),
        use_cache=True,
        output_hidden_states=hidden,
        logits_to_keep=1,
    )
    last_hidden = output.hidden_states[-1][:, -1] if hidden else None
    return output.logits[:, -1], last_hidden, output.past_key_values


def response_outputs(model: PreTrainedModel, responses: Responses) -> Outputs:
    """Logits and last hidden states that predict each response token; differentiable.

    Args:
        model: a causal language model.
        responses: B = N·k rows; each prompt is encoded once for its k responses.

    Returns:
        Logits (B, T, V) and hidden states (B, T, H); those at masked columns mean nothing.
    """
    k = responses.group_size
    prompts = responses.prompts.trimmed()
    logits, hidden, cache = _prefill(model, prompts, hidden=True)
    assert hidden is not None
    first_logits = logits.repeat_interleave(k, 0)[:, None]
    first_hidden = hidden.repeat_interleave(k, 0)[:, None]
    if responses.ids.shape[1] == 1:
        return Outputs(first_logits, first_hidden)
    if k > 1:
        cache.batch_repeat_interleave(k)
    mask = torch.cat([prompts.mask.repeat_interleave(k, 0), responses.mask[:, :-1]], dim=1)
    output = model(
        input_ids=responses.ids[:, :-1],
        attention_mask=mask.long(),
        position_ids=position_ids(mask)[:, prompts.ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
        output_hidden_states=True,
    )
    return Outputs(
        torch.cat([first_logits, output.logits], dim=1),
        torch.cat([first_hidden, output.hidden_states[-1]], dim=1),
    )


def response_states(trunk: PreTrainedModel, responses: Responses) -> Float[Tensor, "B T+1 H"]:
    """Last hidden states at the prompt's last token and then at each response token; differentiable.

    Args:
        trunk: a decoder without a head, such as `model.base_model` of any causal LM or classifier.
        responses: B = N·k rows; each prompt is encoded once for its k responses.

    Returns:
        States (B, T + 1, H): column t has seen the prompt and t response tokens, so the one at a row's
        length has seen all of it. Those further right mean nothing.
    """
    k = responses.group_size
    prompts = responses.prompts.trimmed()
    prefill = trunk(
        input_ids=prompts.ids,
        attention_mask=prompts.mask.long(),
        position_ids=position_ids(prompts.mask),
        past_key_values=DynamicCache(config=trunk.config),
        use_cache=True,
    )
    cache = prefill.past_key_values
    if k > 1:
        cache.batch_repeat_interleave(k)
    mask = torch.cat([prompts.mask.repeat_interleave(k, 0), responses.mask], dim=1)
    output = trunk(
        input_ids=responses.ids,
        attention_mask=mask.long(),
        position_ids=position_ids(mask)[:, prompts.ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )
    first = prefill.last_hidden_state[:, -1:].repeat_interleave(k, 0)
    return torch.cat([first, output.last_hidden_state], dim=1)


def token_logprobs(logits: Float[Tensor, "B T V"], ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Log-probability of each token under the logits that predict it."""
    logits = logits.float()
    # Without the log-probabilities of the other tokens, which real vocabularies have no memory for.
    return logits.gather(2, ids[:, :, None])[:, :, 0] - logits.logsumexp(dim=-1)


def prompts_at_once(model: PreTrainedModel, responses_per_prompt: int, tokens: int) -> int:
    """Prompts whose responses can be run through the model together: as many as keep the logits in bounds.

    Args:
        model: a causal language model; the larger its vocabulary, the fewer.
        responses_per_prompt: k.
        tokens: T, the length of the responses.
    """
    rows = min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (tokens * int(model.config.get_text_config().vocab_size)))
    return max(1, rows // responses_per_prompt)


@torch.no_grad()
def response_logprobs(model: PreTrainedModel, responses: Responses, temperature: float = 1.0) -> Float[Tensor, "B T"]:
    """Log-probability of each response token, 0 where the mask is off; no gradient."""
    width = responses.ids.shape[1]
    parts = []
    for index in torch.arange(len(responses.prompts)).split(prompts_at_once(model, responses.group_size, width)):
        chunk = responses.groups(index)
        logprobs = token_logprobs(response_outputs(model, chunk).logits / temperature, chunk.ids) * chunk.mask
        parts.append(torch.nn.functional.pad(logprobs, (0, width - logprobs.shape[1])))
    return torch.cat(parts)


@torch.no_grad()
def next_token_logprobs(
    model: PreTrainedModel, input_ids: Int[Tensor, "N L"], mask: Bool[Tensor, "N L"]
) -> Float[Tensor, "N V"]:
    """Log-probabilities of the token after the last real one of each row, re-encoding the row."""
    logits, _, _ = _prefill(model, right_aligned(input_ids, mask), hidden=False)
    return torch.log_softmax(logits.float(), dim=-1)


def right_aligned(input_ids: Int[Tensor, "N L"], mask: Bool[Tensor, "N L"]) -> Prompts:
    """Each row moved to the right end, so that its last real token is in the last column."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    trailing = mask.long().flip(1).argmax(dim=1, keepdim=True)
    source = (columns - trailing) % len(columns)
    return Prompts(input_ids.gather(1, source), mask.gather(1, source)).trimmed()


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Prompts,
    *,
    group_size: int,
    max_tokens: int,
    eos_id: int,
    pad_id: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    greedy: bool = False,
) -> Sample:
    """Samples `group_size` responses to each prompt, decoding the whole batch with a KV cache.

    The noise of row i at step t depends on the generator, i and t only, not on which other rows
    have ended, so that two policies sampled with equal generators see the same noise.

    Returns:
        Responses (N·group_size, T ≤ max_tokens) and their log-probabilities, 0 where masked.
    """
    batch = len(prompts) * group_size
    prompts = prompts.trimmed()
    logits, _, cache = _prefill(model, prompts, hidden=False)
    logits = logits.repeat_interleave(group_size, 0)
    if group_size > 1:
        cache.batch_repeat_interleave(group_size)
    make_room(cache, max_tokens - 1)
    context_mask = prompts.mask.repeat_interleave(group_size, 0)
    positions = context_mask.long().sum(dim=1, keepdim=True)
    ids = torch.full((batch, max_tokens), pad_id, dtype=torch.long)
    mask = torch.zeros((batch, max_tokens), dtype=torch.bool)
    logprobs = torch.zeros((batch, max_tokens))
    rows = torch.arange(batch)  # the response that each row of the cache belongs to
    live = torch.ones(batch, dtype=torch.bool)  # whether it goes on
    for step in range(max_tokens):
        scaled = torch.log_softmax(logits.float() / temperature, dim=-1)
        if greedy:
            token = scaled.argmax(dim=-1)
        else:
            # Inverse-CDF sampling: one uniform number a row and step.
            uniform = torch.rand(batch, generator=generator, dtype=torch.float64)[rows, None]
            cumulative = scaled.double().exp().cumsum(dim=-1)
            token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
            token = token.clamp(max=scaled.shape[1] - 1)
        ids[rows[live], step] = token[live]
        mask[rows[live], step] = True
        logprobs[rows[live], step] = scaled.gather(1, token[:, None])[live, 0]
        live = live & (token != eos_id)
        if step + 1 == max_tokens or not bool(live.any()):
            break
        # To drop rows copies the cache: not for a few of them.
        if int(live.sum()) <= 0.875 * len(live):
            keep = live.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            rows, token, live, context_mask, positions = (
                each[keep] for each in (rows, token, live, context_mask, positions)
            )
        context_mask = torch.cat([context_mask, torch.ones(len(rows), 1, dtype=torch.bool)], dim=1)
        output = model(
            input_ids=token[:, None],
            attention_mask=context_mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        logits = output.logits[:, -1]
        positions = positions + 1
    width = max(1, int(mask.sum(dim=1).max()))
    responses = Responses(prompts, ids[:, :width], mask[:, :width])
    return Sample(responses, logprobs[:, :width])
