"""Muon for the matrices inside a transformer's layers, AdamW for embeddings, norms and heads.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; its steps are scaled to
the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, section 2.2). Small models learn to look
things up in a prompt in several times fewer texts than with AdamW alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

SCALE = 2.0
"""Muon's rate as a multiple of AdamW's."""


class MuonAdamW:
    """Both optimisers of one model, stepped together."""

    def __init__(self, model: PreTrainedModel, *, weight_decay: float) -> None:
        self.parameters = list(model.parameters())
        matrices = _hidden_matrices(model)
        hidden = {id(weight) for weight in matrices}
        others = [weight for weight in self.parameters if id(weight) not in hidden]
        self._muon: torch.optim.Optimizer = torch.optim.Muon(
            matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
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
            for optimizer, scale in ((self._muon, SCALE), (self._adamw, 1.0)):
                for group in optimizer.param_groups:
                    group["lr"] = scale * learning_rate
                optimizer.step()
        for weight in self.parameters:
            weight.grad = None
        return norm


def _hidden_matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """The matrices of the model's trunk that are no embeddings."""
    layers = [module for module in model.base_model.modules() if not isinstance(module, nn.Embedding)]
    return [weight for layer in layers for weight in layer.parameters(recurse=False) if weight.ndim == 2]
