"""Running a causal language model over prompts and responses, without doing a prompt twice.

A prompt's keys and values are computed once and shared by all its responses, in sampling and,
with gradients, in training alike. Models of the types of Llama and GPT-2 are run on real tokens only
(`textenv.packed`). Any other transformers causal LM works too: only its forward call, its cache and
its `position_ids` are used. Positions always come from the mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textenv import packed
from textenv.architecture import architecture_of, logits_of
from textenv.decoders import decoder, read_prompts
from textenv.kv_cache import closed_up
from textenv.responses import Prompts, Responses, parts_of, positions_of
from textenv.sampling import NEUTRAL, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS_AT_ONCE = 512
"""Responses that go through a model together at most; bounds the memory of the cache."""

LOGITS_AT_ONCE = 2**26
"""Numbers of logits that are held together at most, 256 MiB in float32; with their softmax, several times that."""


class Sample(NamedTuple):
    """Sampled responses and what the sampling distribution says of each token; 0 where the mask is off."""

    responses: Responses
    logprobs: Float[Tensor, "B T"]
    entropy: Float[Tensor, "B T"]
    """Of the distribution that the token was drawn from, in nats."""
    hidden: Float[Tensor, "n H"] | None
    """The final hidden states that predicted the n tokens, row by row; None where they were not asked for."""


class Predictions(NamedTuple):
    """What a model says before each of the n response tokens, row by row; `spread` puts it into columns."""

    logits: Float[Tensor, "n V"]
    hidden: Float[Tensor, "n H"]
    """The final hidden states that the logits are made of."""


def predictions(model: PreTrainedModel, responses: Responses) -> Predictions:
    """Logits and final hidden states that predict each response token; differentiable.

    Args:
        model: a causal language model.
        responses: B = N·k rows; each prompt is encoded once for its k responses.
    """
    architecture = architecture_of(model)
    if architecture is None:
        return _general_predictions(model, responses)
    hidden = packed.predicting_states(architecture, responses)
    return Predictions(logits_of(model, hidden), hidden)


def predicting_states(model: PreTrainedModel, responses: Responses) -> Float[Tensor, "n H"]:
    """The same hidden states alone, where no logits are needed."""
    architecture = architecture_of(model)
    if architecture is None:
        return _general_states(model, responses)[:, :-1][responses.mask]
    return packed.predicting_states(architecture, responses)


def final_states(model: PreTrainedModel, responses: Responses) -> Float[Tensor, "B H"]:
    """The final hidden state at the last token of each response, the prompt's where it is empty; differentiable.

    Args:
        model: a decoder, with or without a head.
        responses: B = N·k rows; each prompt is encoded once for its k responses.
    """
    trunk: Any = model.base_model
    architecture = architecture_of(trunk)
    if architecture is not None:
        return packed.final_states(architecture, responses)
    return _general_states(model, responses)[torch.arange(len(responses)), responses.lengths]


def spread(values: Float[Tensor, "n ..."], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T ..."]:
    """What belongs to the tokens that a mask covers, row by row, in their columns; zeros elsewhere."""
    return packed.Rows.of(mask).spread(values)


def _general_predictions(model: PreTrainedModel, responses: Responses) -> Predictions:
    """Through transformers' own forward pass, which does to logits whatever the model does to them."""
    k = responses.group_size
    prompts = responses.prompts.trimmed()
    output = read_prompts(model, prompts, output_hidden_states=True, logits_to_keep=1)
    logits, hidden = (each[:, -1:].repeat_interleave(k, 0) for each in (output.logits, output.hidden_states[-1]))
    if responses.ids.shape[1] > 1:
        cache = output.past_key_values
        if k > 1:
            cache.batch_repeat_interleave(k)
        mask = torch.cat([prompts.mask.repeat_interleave(k, 0), responses.mask[:, :-1]], dim=1)
        output = model(
            input_ids=responses.ids[:, :-1],
            attention_mask=mask.long(),
            position_ids=positions_of(mask)[:, prompts.ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
        )
        logits, hidden = torch.cat([logits, output.logits], 1), torch.cat([hidden, output.hidden_states[-1]], 1)
    return Predictions(logits[responses.mask], hidden[responses.mask])


def _general_states(model: PreTrainedModel, responses: Responses) -> Float[Tensor, "B T+1 H"]:
    """Through transformers' own forward pass: states at the prompt's last token and then at each response token."""
    k = responses.group_size
    trunk: Any = model.base_model
    prompts = responses.prompts.trimmed()
    read = read_prompts(trunk, prompts)
    cache = read.past_key_values
    if k > 1:
        cache.batch_repeat_interleave(k)
    mask = torch.cat([prompts.mask.repeat_interleave(k, 0), responses.mask], dim=1)
    output = trunk(
        input_ids=responses.ids,
        attention_mask=mask.long(),
        position_ids=positions_of(mask)[:, prompts.ids.shape[1] :],
        past_key_values=cache,
        use_cache=True,
    )
    first = read.last_hidden_state[:, -1:].repeat_interleave(k, 0)
    return torch.cat([first, output.last_hidden_state], dim=1)


def token_logprobs(logits: Float[Tensor, "n V"], ids: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Log-probability of each token under the logits that predict it."""
    return -torch.nn.functional.cross_entropy(logits.float(), ids, reduction="none")


def prompts_at_once(model: PreTrainedModel, responses_per_prompt: int, tokens: int) -> int:
    """Prompts whose responses can be run through the model together: as many as keep the logits in bounds.

    Args:
        model: a causal language model; the larger its vocabulary, the fewer.
        responses_per_prompt: k.
        tokens: T, the length of the responses.
    """
    rows = min(ROWS_AT_ONCE, LOGITS_AT_ONCE // (tokens * int(model.config.get_text_config().vocab_size)))
    return max(1, rows // responses_per_prompt)


def drawn_logits(model: PreTrainedModel, responses: Responses, sampling: Sampling) -> Float[Tensor, "n V"]:
    """Logits of the distribution that each response token is drawn from, row by row.

    Args:
        model: a causal language model.
        responses: B = N·k rows; the tokens that could be drawn are looked up there, where they are kept and the
            sampling restricts them.
        sampling: how tokens are drawn.
    """
    logits = predictions(model, responses).logits
    if not sampling.restricts:  # As the reference, which judges what a policy has drawn from fewer tokens.
        allowed: Tensor | None = None
    elif responses.allowed is not None:
        allowed = responses.allowed[responses.mask]
    elif sampling.nucleus_of is None:
        allowed = sampling.allowed(logits)
    else:
        allowed = sampling.allowed(predictions(sampling.nucleus_of, responses).logits)
    return sampling.scaled(logits, allowed)


@torch.no_grad()
def response_logprobs(
    model: PreTrainedModel, responses: Responses, sampling: Sampling = NEUTRAL
) -> Float[Tensor, "B T"]:
    """Log-probability of each response token, 0 where the mask is off; no gradient."""
    width = responses.ids.shape[1]
    parts = []
    fit = prompts_at_once(model, responses.group_size, width)
    for index in parts_of(responses.prompts, responses.group_size * width, fit):
        chunk = responses.groups(index)
        logits = drawn_logits(model, chunk, sampling)
        logprobs = spread(token_logprobs(logits, chunk.ids[chunk.mask]), chunk.mask)
        parts.append(torch.nn.functional.pad(logprobs, (0, width - logprobs.shape[1])))
    return torch.cat(parts)


@torch.no_grad()
def next_token_logprobs(
    model: PreTrainedModel,
    input_ids: Int[Tensor, "N L"],
    mask: Bool[Tensor, "N L"],
    sampling: Sampling = NEUTRAL,
) -> Float[Tensor, "N V"]:
    """Log-probabilities of the token after the last real one of each row, re-encoding the row."""
    prompts = right_aligned(input_ids, mask)
    logits = _next_logits(model, prompts)
    judged = logits if sampling.nucleus_of is None else _next_logits(sampling.nucleus_of, prompts)
    return torch.log_softmax(sampling.scaled(logits, sampling.allowed(judged)).float(), dim=-1)


def _next_logits(model: PreTrainedModel, prompts: Prompts) -> Float[Tensor, "N V"]:
    architecture = architecture_of(model)
    if architecture is None:
        logits: Tensor = read_prompts(model, prompts, logits_to_keep=1).logits[:, -1]
    else:
        logits = logits_of(model, packed.prefill(architecture, prompts).last)
    return logits


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
    sampling: Sampling = NEUTRAL,
    greedy: bool = False,
    keep_states: bool = False,
) -> Sample:
    """Samples `group_size` responses to each prompt, decoding the whole batch with a KV cache.

    The noise of row i at step t depends on the generator, i and t only, not on which other rows
    have ended, so that two policies sampled with equal generators see the same noise.

    Args:
        model: a causal language model.
        prompts: N of them.
        group_size: responses to each.
        max_tokens: the most tokens of a response.
        eos_id: the token that ends one.
        pad_id: fills what is left of a row.
        generator: draws one uniform number a row and step.
        sampling: how tokens are drawn; `logprobs` and `entropy` are of the distribution that results.
        greedy: take the likeliest token.
        keep_states: fill `hidden`.

    Returns:
        Responses (N·group_size, T ≤ max_tokens) and what was said of their tokens.
    """
    batch = len(prompts) * group_size
    prompts = prompts.trimmed()
    running = decoder(model, prompts, group_size, max_tokens)
    masking = sampling.nucleus_of
    nucleus = None if masking is None else decoder(masking, prompts, group_size, max_tokens)
    ids = torch.full((batch, max_tokens), pad_id, dtype=torch.long)
    mask = torch.zeros((batch, max_tokens), dtype=torch.bool)
    logprobs, entropy = torch.zeros((batch, max_tokens)), torch.zeros((batch, max_tokens))
    could = torch.zeros((*mask.shape, running.logits.shape[1]), dtype=torch.bool) if sampling.restricts else None
    states: list[Tensor] = []
    places: list[Tensor] = []  # of these states, row by row
    rows = torch.arange(batch)  # the response that each row of the decoder belongs to
    for step in range(max_tokens):
        allowed = sampling.allowed((nucleus or running).logits)
        scaled = torch.log_softmax(sampling.scaled(running.logits, allowed).float(), dim=-1)
        probabilities = scaled.exp()
        if greedy:
            token = scaled.argmax(dim=-1)
        else:
            # Inverse-CDF sampling: one uniform number a row and step, a third of the time of Gumbel noise.
            uniform = torch.rand(batch, generator=generator, dtype=torch.float64)[rows, None]
            cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
            token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
            token = token.clamp(max=scaled.shape[1] - 1)
        ids[rows, step] = token
        mask[rows, step] = True
        logprobs[rows, step] = scaled.gather(1, token[:, None])[:, 0]
        entropy[rows, step] = entropy_of(scaled, probabilities)
        if could is not None and allowed is not None:
            could[rows, step] = allowed
        if keep_states:
            states.append(running.hidden)
            places.append(rows * max_tokens + step)
        live = token != eos_id
        if step + 1 == max_tokens or not live.any():
            break
        keep = None if live.all() else closed_up(live)
        if keep is not None:
            rows, token = rows[keep], token[keep]
        for each in (running, nucleus):
            if each is not None:
                each.step(token, keep)
    width = max(1, int(mask.sum(dim=1).max()))
    mask = mask[:, :width]
    responses = Responses(prompts, ids[:, :width], mask, None if could is None else could[:, :width])
    hidden = torch.cat(states)[torch.cat(places).argsort()] if keep_states else None
    return Sample(responses, logprobs[:, :width], entropy[:, :width], hidden)


def entropy_of(logprobs: Float[Tensor, "n V"], probabilities: Float[Tensor, "n V"]) -> Float[Tensor, " n"]:
    """−Σ p·log p in nats; a token that is impossible adds nothing, and not 0·(−∞)."""
    lowest = torch.finfo(logprobs.dtype).min
    return -(probabilities * logprobs.clamp(min=lowest)).sum(dim=-1)
