"""Learning a reward model from comparisons by the loss of Bradley and Terry, and measuring what it learned."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reward_models.bundles import bundle, collate
from reward_models.reward_model import RewardModel
from textenv.bradley_terry import bradley_terry_loss, smoothed_label, unflipped_label
from textenv.errors import TextenvError, UsageError
from textenv.muon import MuonAdamW
from textenv.preferences import Preferences
from textenv.progress import Progress


@dataclass(frozen=True)
class RewardModelConfig:
    """How a reward model is fitted.

    Raises:
        UsageError: a value is outside its range.
    """

    learning_rate: float = 1e-3
    """AdamW's step size at the start; Muon's is twice as long, and both fall linearly to 0."""
    epochs: int = 1
    """Passes over the comparisons."""
    batch_size: int = 16
    """Comparisons a step, on average: those of one prompt are learned together."""
    held_out: float = 0.1
    """Share of the prompts whose comparisons are kept for measuring, in (0, 1)."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients of a larger norm are scaled down to this one."""
    label_smoothing: float = 0.0
    """ε in [0, 1/2): labels are learned as (1 − ε)·label + ε·(1 − label), which keeps the reward from growing sure."""
    flip_rate: float = 0.0
    """ε in [0, 1/2): the share of labels known to be flipped, for which the loss is corrected without bias."""

    def __post_init__(self) -> None:
        checks = {
            "learning_rate": (self.learning_rate > 0 and math.isfinite(self.learning_rate), "above 0"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "held_out": (0 < self.held_out < 1, "between 0 and 1, both excluded"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
            "max_grad_norm": (self.max_grad_norm > 0, "above 0"),
            "label_smoothing": (0 <= self.label_smoothing < 0.5, "0 or more and below 0.5"),
            "flip_rate": (0 <= self.flip_rate < 0.5, "0 or more and below 0.5"),
        }
        for name, (valid, expected) in checks.items():
            if not valid:
                raise UsageError(f"{name} must be {expected}, got {getattr(self, name)}")
        if self.label_smoothing and self.flip_rate:
            raise UsageError(
                f"label_smoothing {self.label_smoothing} and flip_rate {self.flip_rate} undo each other; set one only"
            )


@dataclass(frozen=True)
class CalibrationBin:
    """Comparisons whose predicted probabilities are near each other."""

    predicted: float
    """Mean predicted probability that the first is preferred."""
    observed: float
    """Mean label."""
    count: int


@dataclass(frozen=True)
class FitResult:
    """What was learned, measured on the held-out comparisons; NaN where the truth is unknown."""

    losses: list[float]
    """Loss of each step's batch, before the step."""
    held_out: int
    """Number of held-out comparisons."""
    accuracy_labels: float
    """Share of the labels that the order of the rewards predicts; ties in the labels are left out."""
    accuracy_true: float
    """Share of the pairs that the rewards order as the true utilities do; ties in truth are left out."""
    ceiling_labels: float
    """Share of the labels that the order of the true utilities predicts."""
    bayes_accuracy: float
    """Share of such labels that is predicted at best in expectation: the mean of max(p, 1 − p)."""
    bins: list[CalibrationBin]
    """Predicted probability against observed frequency, in tenths of probability; no empty bins."""

    @property
    def ceiling_true(self) -> float:
        """1 where the truth is known: ties are left out, so a perfect model orders every pair right."""
        return math.nan if math.isnan(self.accuracy_true) else 1.0

    def to_dict(self) -> dict[str, Any]:
        """The measurements for a JSON file, without the loss curve; null where the truth is unknown."""
        names = ("accuracy_true", "ceiling_true", "accuracy_labels", "ceiling_labels", "bayes_accuracy", "held_out")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        known = {name: None if math.isnan(value) else value for name, value in values.items()}
        return {**known, "bins": [asdict(each) for each in self.bins]}


def order_accuracy(difference: Float[Tensor, " n"], target: Float[Tensor, " n"]) -> float:
    """Share of the pairs with target ≠ 0 whose difference has the target's sign; a tie counts one half."""
    decided = (target != 0) & ~target.isnan()
    if not bool(decided.any()):
        return math.nan
    agreement = difference[decided].sign() * target[decided].sign()
    return float(((1 + agreement.double()) / 2).mean())


def calibration_bins(
    predicted: Float[Tensor, " n"], label: Float[Tensor, " n"], count: int = 10
) -> list[CalibrationBin]:
    """Groups predictions into `count` equally wide bins of [0, 1] and leaves out the empty ones."""
    place = (predicted * count).long().clamp(0, count - 1)
    members = [place == index for index in range(count)]
    return [
        CalibrationBin(float(predicted[chosen].mean()), float(label[chosen].mean()), int(chosen.sum()))
        for chosen in members
        if bool(chosen.any())
    ]


def fit(
    model: RewardModel,
    preferences: Preferences,
    config: RewardModelConfig,
    generator: torch.Generator,
    progress: Progress | None = None,
    reliability: Mapping[str, float] | None = None,
) -> FitResult:
    """Fits the model in place to the comparisons of most prompts and measures it on the others.

    The loss is that of `model.scores`, gain and bias included; normalise the model before, so that it
    starts from differences of about 1, and again afterwards, because learning moves both.

    Args:
        model: is changed.
        preferences: only prompts, responses and labels are learned from.
        config: see `RewardModelConfig`.
        generator: draws the split and the order of the comparisons, the same for the same state.
        progress: told the steps done, their total, and the step's loss and accuracy.
        reliability: of each rater by name, as a consensus estimates it: the loss allows for who errs, and how often.
            None takes all alike.

    Raises:
        UsageError: a rater's reliability is missing or no probability.
        TextenvError: the loss or its gradient is not finite.
    """
    train, held_out = preferences.split(config.held_out, generator)
    label, weight = learned_labels(train, config, reliability)
    bundles = bundle(train)
    bundles_a_step = max(1, round(config.batch_size * len(bundles) / len(train)))
    steps = config.epochs * math.ceil(len(bundles) / bundles_a_step)
    optimizer = MuonAdamW(model.model, weight_decay=config.weight_decay)
    losses: list[float] = []
    for _ in range(config.epochs):
        for chosen in torch.randperm(len(bundles), generator=generator).split(bundles_a_step):
            batch = collate(train, [bundles[index] for index in chosen.tolist()])
            scores = model.scores(batch.responses)
            first, second = scores[batch.first], scores[batch.second]
            counts = None if weight is None else weight[batch.row]
            loss = bradley_terry_loss(first, second, label[batch.row], counts)
            learning_rate = config.learning_rate * (1 - len(losses) / steps)
            norm = optimizer.step(loss, learning_rate, config.max_grad_norm)
            if not bool(torch.isfinite(loss + norm)):
                raise TextenvError(
                    f"the reward model's loss became {loss.item():g} (gradient norm {norm.item():g}) at step "
                    f"{len(losses) + 1} of {steps}; use a lower learning rate than {config.learning_rate:g}"
                )
            losses.append(loss.item())
            if progress is not None:
                accuracy = order_accuracy(first.detach() - second.detach(), batch.label - 0.5)
                progress(len(losses), steps, {"loss": losses[-1], "accuracy": accuracy})
    return measure(model, held_out, losses)


def learned_labels(
    preferences: Preferences, config: RewardModelConfig, reliability: Mapping[str, float] | None
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"] | None]:
    """The labels for the loss, and how much each counts, after all that is done about noise.

    A label of a rater of reliability η is corrected for flips at the rate 1 − η and counts (2η − 1)²: the noise of
    the corrected label grows as the inverse of that. Whoever clicks at random counts nothing, and an adversary's
    labels are turned round.

    Raises:
        UsageError: a rater's reliability is missing or no probability, or no rater is left who tells anything.
    """
    label, weight = preferences.label, None
    if reliability is not None:
        missing = sorted(set(preferences.rater) - reliability.keys())
        strange = [f"{name} {value}" for name, value in reliability.items() if not 0 <= value <= 1]
        if missing or strange:
            wrong = f"none for {', '.join(missing)}" if missing else f"got {', '.join(strange)}"
            raise UsageError(f"every rater needs a reliability in [0, 1]; {wrong}")
        signal = torch.tensor([2 * reliability[name] - 1 for name in preferences.rater])
        weight = signal.square()
        if not bool(weight.any()):
            raise UsageError("every rater has the reliability 1/2, so the labels say nothing; expected is some other")
        label = torch.where(signal == 0, 0.5, (label - 0.5) / signal + 0.5)
    if config.flip_rate:
        label = unflipped_label(label, config.flip_rate)
    return smoothed_label(label, config.label_smoothing), weight


def measure(model: RewardModel, held_out: Preferences, losses: list[float]) -> FitResult:
    """Measures a model on comparisons that it has not learned from."""
    first, second = model(held_out.paired()).view(-1, 2).unbind(dim=1)
    difference = first - second
    true_difference = held_out.utility[:, 0] - held_out.utility[:, 1]
    wanted = held_out.label - 0.5
    known = ~true_difference.isnan()
    best = torch.maximum(held_out.probability, 1 - held_out.probability)
    return FitResult(
        losses=losses,
        held_out=len(held_out),
        accuracy_labels=order_accuracy(difference, wanted),
        accuracy_true=order_accuracy(difference, true_difference),
        ceiling_labels=order_accuracy(true_difference[known], wanted[known]),
        bayes_accuracy=float(best.nanmean()),
        bins=calibration_bins(torch.sigmoid(difference), held_out.label),
    )
