"""Muon for the matrices inside a transformer's layers, AdamW for embeddings, norms and heads.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; its steps are scaled to
the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, section 2.2). Small models learn to look
things up in a prompt in several times fewer texts than with AdamW alone.

torch.optim.Muon does its matrix products in bfloat16 and one weight at a time; a processor without
bfloat16 emulates it, which took 13 times as long as the rest of a reward model's training.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SCALE = 2.0
"""Muon's rate as a multiple of AdamW's."""
MOMENTUM = 0.95
"""Share of the momentum that a step keeps."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b and c of Jordan's iteration X ← aX + (bXXᵀ + c(XXᵀ)²)X."""
ITERATIONS = 5
"""After so many, singular values between about 0.003 and 1 lie between about 0.7 and 1.2."""


class MuonAdamW:
    """Both optimisers of one model, stepped together."""

    def __init__(self, model: PreTrainedModel, *, weight_decay: float) -> None:
        self.parameters = list(model.parameters())
        matrices = _hidden_matrices(model)
        hidden = {id(weight) for weight in matrices}
        others = [weight for weight in self.parameters if id(weight) not in hidden]
        self._muon = _Muon(matrices, weight_decay)
        self._adamw: torch.optim.Optimizer = torch.optim.AdamW(
            others, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True
        )

    def step(self, loss: Tensor, learning_rate: float, max_grad_norm: float) -> Tensor:
        """One step down the loss.

        Args:
            loss: of this batch.
            learning_rate: AdamW's; Muon's is `SCALE` times as high.
            max_grad_norm: a gradient longer than this is shortened to it.

        Returns:
            The norm that the gradient had. Where it is not finite, nothing has moved.
        """
        torch.autograd.backward([loss])
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, max_grad_norm)
        if bool(norm.isfinite()):
            for group in self._adamw.param_groups:
                group["lr"] = learning_rate
            self._adamw.step()
            self._muon.step(SCALE * learning_rate)
        for weight in self.parameters:
            weight.grad = None
        return norm


class _Muon:
    """Nesterov momentum whose matrices are made orthogonal, all those of one shape at once."""

    def __init__(self, matrices: Sequence[nn.Parameter], weight_decay: float) -> None:
        shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for weight in matrices:
            shapes[weight.shape].append(weight)
        self._weight_decay = weight_decay
        self._groups = list(shapes.values())
        self._momenta = [group[0].new_zeros(len(group), *group[0].shape) for group in self._groups]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for group, momentum in zip(self._groups, self._momenta, strict=True):
            gradient = torch.stack([torch.zeros_like(each) if each.grad is None else each.grad for each in group])
            momentum.lerp_(gradient, 1 - MOMENTUM)
            direction = orthogonal(gradient.lerp(momentum, MOMENTUM))
            # A step of AdamW has a root mean square of about 0.2, one of this 1/√(longer side) before it.
            size = 0.2 * math.sqrt(max(group[0].shape))
            torch._foreach_mul_(group, 1 - learning_rate * self._weight_decay)
            torch._foreach_add_(group, direction.unbind(), alpha=-learning_rate * size)


def orthogonal(matrices: Float[Tensor, "m rows columns"]) -> Float[Tensor, "m rows columns"]:
    """Each matrix with its singular values brought near 1, by the Newton-Schulz iteration of Jordan et al. 2024."""
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if tall else wide


def _hidden_matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """The matrices of the model's trunk that are no embeddings."""
    layers = [module for module in model.base_model.modules() if not isinstance(module, nn.Embedding)]
    return [weight for layer in layers for weight in layer.parameters(recurse=False) if weight.ndim == 2]
