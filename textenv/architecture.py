"""The parts of Llama- and GPT-2-type models, for running them without padding and without repeated work.

The parts are the modules of the transformers model itself, so weights and gradients are the same; only
what lies between them (masks, attention, caches) is done elsewhere, by `textenv.packed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from textenv.gelu import gelu
from textenv.linear import filled, linear, rows_multiplied

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHANGING_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies depend on the length of the batch."""

MOST_ROUNDED = 2**28
"""Multiplications for logits up to which their rows are rounded up. Of more the time is what counts, not that of a
program for their number, and to cut off rows copies all the others' gradients."""


class QKV(Protocol):
    """Queries, keys and values of packed tokens, not yet rotated."""

    def __call__(self, x: Float[Tensor, "n H"], /) -> tuple[Tensor, Tensor, Tensor]:
        """Three tensors (n, heads·D)."""
        ...


Block = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """One transformer layer with norms before its blocks (pre-norm)."""

    attention_norm: Block
    qkv: QKV
    attention_output: Block
    mlp_norm: Block
    mlp: Block


@dataclass(frozen=True)
class Architecture:
    """A decoder as its parts."""

    embed: Callable[[Int[Tensor, " n"], Int[Tensor, " n"]], Float[Tensor, "n H"]]
    """Token ids and positions to the first hidden states."""
    rotation: Callable[[Int[Tensor, " n"]], tuple[Tensor, Tensor]] | None
    """Positions to cosines and sines (n, D) of rotary embeddings, the sines of a head's first half with a minus; None
    where there are none."""
    layers: list[Layer]
    norm: Block
    heads: int
    key_heads: int
    """Heads of keys and values; fewer than `heads` where queries share them."""
    head_width: int


def architecture_of(model: PreTrainedModel) -> Architecture | None:
    """The parts of a causal LM or of its trunk; None where it is of a type, or has a setting, not known here."""
    # Only here, where a model has been loaded and so have these: it takes seconds.
    from transformers import GPT2LMHeadModel, GPT2Model, LlamaForCausalLM, LlamaModel

    trunk: Any = model.base_model
    if trunk.training or trunk.dtype != torch.float32:
        return None  # It may drop out; and masks are made in float32.
    if type(trunk) is LlamaModel and type(model) in (LlamaModel, LlamaForCausalLM):
        return None if trunk.rotary_emb.rope_type in CHANGING_ROPE else _llama(trunk)
    if type(trunk) is GPT2Model and type(model) in (GPT2Model, GPT2LMHeadModel):
        config = trunk.config
        plain = config.scale_attn_weights and not config.scale_attn_by_inverse_layer_idx
        return _gpt2(trunk) if plain and not config.add_cross_attention else None
    return None


def logits_of(model: PreTrainedModel, hidden: Float[Tensor, "n H"]) -> Float[Tensor, "n V"]:
    """What a causal LM with such parts says comes after the tokens that its final hidden states stand at."""
    head: Any = model.get_output_embeddings()
    count = len(hidden)
    if hidden.numel() * model.config.vocab_size > MOST_ROUNDED:
        return linear(head, hidden)
    logits = linear(head, filled(hidden, rows_multiplied(count)))
    return logits if len(logits) == count else logits[:count]


def _llama(trunk: Any) -> Architecture:
    from transformers.models.llama.modeling_llama import LlamaMLP

    def rotation(positions: Tensor) -> tuple[Tensor, Tensor]:
        rotary = trunk.rotary_emb
        angles = positions[:, None].float() * rotary.inv_freq
        cos, sin = angles.cos() * rotary.attention_scaling, angles.sin() * rotary.attention_scaling
        return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)

    def layer(block: Any) -> Layer:
        attention, mlp = block.self_attn, block.mlp
        inputs = attention.q_proj, attention.k_proj, attention.v_proj

        def feed_forward(x: Tensor) -> Tensor:
            gate, up = mlp.act_fn(linear(mlp.gate_proj, x)), linear(mlp.up_proj, x)
            return linear(mlp.down_proj, gate * up if torch.is_grad_enabled() else gate.mul_(up))

        return Layer(
            _rms_norm(block.input_layernorm),
            lambda x: (linear(inputs[0], x), linear(inputs[1], x), linear(inputs[2], x)),
            partial(linear, attention.o_proj),
            _rms_norm(block.post_attention_layernorm),
            feed_forward if type(mlp) is LlamaMLP else mlp,
        )

    config = trunk.config
    return Architecture(
        embed=lambda ids, _: trunk.embed_tokens(ids),
        rotation=rotation,
        layers=[layer(block) for block in trunk.layers],
        norm=_rms_norm(trunk.norm),
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_width=trunk.layers[0].self_attn.head_dim,
    )


def _gpt2(trunk: Any) -> Architecture:
    from transformers.activations import NewGELUActivation

    def layer(block: Any) -> Layer:
        width = block.attn.split_size

        def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            queries, keys, values = linear(block.attn.c_attn, x).split(width, dim=1)
            return queries, keys, values

        def mlp(x: Tensor) -> Tensor:
            activation = gelu if isinstance(block.mlp.act, NewGELUActivation) else block.mlp.act
            return linear(block.mlp.c_proj, activation(linear(block.mlp.c_fc, x)))

        return Layer(block.ln_1, qkv, partial(linear, block.attn.c_proj), block.ln_2, mlp)

    config = trunk.config
    return Architecture(
        embed=lambda ids, positions: trunk.wte(ids) + trunk.wpe(positions),
        rotation=None,
        layers=[layer(block) for block in trunk.h],
        norm=trunk.ln_f,
        heads=config.num_attention_heads,
        key_heads=config.num_attention_heads,
        head_width=config.hidden_size // config.num_attention_heads,
    )


def _rms_norm(module: Any) -> Block:
    """The norm in one fused operation."""
    weight, epsilon = module.weight, module.variance_epsilon
    return lambda x: functional.rms_norm(x, weight.shape, weight, epsilon)
