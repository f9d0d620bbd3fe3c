import json
import math

import numpy as np
import pytest
import torch

from reward_models.comparisons import LabelBudget, compare
from reward_models.fitting import (
    FitResult,
    RewardModelConfig,
    calibration_bins,
    fit,
    learned_labels,
    measure,
    order_accuracy,
)
from reward_models.raters import load_rater
from reward_models.reward_model import RewardModel
from textenv import models, tasks
from textenv.errors import TextenvError, UsageError
from textenv.preferences import Preferences
from textenv.responses import Prompts, Responses
from textenv.tasks.base import prompts_of

TASK = tasks.load("exact")
LANGUAGE_MODEL = models.load("exact")


def sampled(prompts: int, seed: int) -> Responses:
    """Four responses of the reference to each of Exact's prompts, drawn again and again."""
    batch = prompts_of(TASK, TASK.fixed_prompts("train", prompts))
    generator = torch.Generator().manual_seed(seed)
    return LANGUAGE_MODEL.sample(batch, max_tokens=5, generator=generator, group_size=4).responses


def labelled(prompts: int, labels: int, rater: str, seed: int) -> Preferences:
    responses = sampled(prompts, seed)
    utility = TASK.gold(responses).utility
    return compare(responses, utility, load_rater(rater), LabelBudget(labels), np.random.default_rng(seed))


def fresh_model(seed: int = 0) -> RewardModel:
    return RewardModel.from_language_model(LANGUAGE_MODEL, torch.Generator().manual_seed(seed))


def test_accuracy_counts_ties_of_the_score_as_halves_and_leaves_out_those_of_the_target():
    difference = torch.tensor([1.0, -1.0, 2.0, 0.0, 5.0, 5.0])
    target = torch.tensor([3.0, -0.5, -1.0, 1.0, 0.0, math.nan])
    assert order_accuracy(difference, target) == (1 + 1 + 0 + 0.5) / 4
    assert math.isnan(order_accuracy(difference, torch.zeros(6)))


def test_calibration_bins_worked_out_by_hand():
    predicted = torch.tensor([0.05, 0.07, 0.55, 1.0])
    bins = calibration_bins(predicted, torch.tensor([0.0, 1.0, 0.5, 1.0]))
    assert [each.count for each in bins] == [2, 1, 1]
    assert [each.predicted for each in bins] == pytest.approx([0.06, 0.55, 1.0])
    assert [each.observed for each in bins] == pytest.approx([0.5, 0.5, 1.0])


def test_ceilings_are_those_of_the_truth():
    prompts = Prompts.from_lists([[2]] * 4, 0)
    preferences = Preferences(
        Responses.from_lists(prompts, [[2]] * 4, 0),
        Responses.from_lists(prompts, [[3]] * 4, 0),
        label=torch.tensor([1.0, 1.0, 0.0, 0.0]),
        rater=["ann"] * 4,
        session_time=torch.zeros(4, dtype=torch.float64),
        utility=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [2.0, 2.0]]),
        probability=torch.tensor([0.9, 0.2, 0.3, 0.5]),
    )
    result = measure(fresh_model(), preferences, [])
    assert result.held_out == 4
    assert result.ceiling_labels == (1 + 0 + 1 + 0.5) / 4
    assert result.bayes_accuracy == pytest.approx((0.9 + 0.8 + 0.7 + 0.5) / 4)
    # One pair, asked four times: whichever the model prefers, it is right in half of the labels.
    assert result.accuracy_labels == 0.5
    assert result.accuracy_true in (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert result.ceiling_true == 1


def test_unknown_truth_is_said_to_be_unknown():
    result = FitResult([], 3, 0.5, math.nan, math.nan, math.nan, [])
    as_json = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert as_json["accuracy_true"] is as_json["ceiling_true"] is as_json["bayes_accuracy"] is None
    assert as_json["accuracy_labels"] == 0.5


def test_a_reward_model_learns_the_true_order_from_the_oracle():
    model = fresh_model()
    model.normalise(sampled(100, 1))
    preferences = labelled(1000, 3000, "oracle", 0)
    config = RewardModelConfig(learning_rate=2e-3, epochs=2)
    result = fit(model, preferences, config, torch.Generator().manual_seed(0))
    assert np.mean(result.losses[-10:]) < np.mean(result.losses[:10])
    assert result.accuracy_true >= 0.8
    # Also on comparisons of other samples, as many as make the estimate sure.
    assert measure(model, labelled(500, 1500, "oracle", 7), []).accuracy_true >= 0.8


def test_predictions_of_noisy_labels_are_calibrated():
    model = fresh_model()
    model.normalise(sampled(100, 1))
    preferences = labelled(500, 2000, "bradley-terry", 0)
    fit(model, preferences, RewardModelConfig(learning_rate=2e-3), torch.Generator().manual_seed(0))
    fresh = measure(model, labelled(500, 2000, "bradley-terry", 7), [])
    error = sum(each.count * abs(each.predicted - each.observed) for each in fresh.bins) / fresh.held_out
    assert error < 0.08
    assert fresh.accuracy_true > fresh.accuracy_labels
    assert fresh.accuracy_labels < fresh.ceiling_labels + 0.02
    assert abs(fresh.ceiling_labels - fresh.bayes_accuracy) < 0.04


def test_fitting_is_the_generators_and_not_the_paddings(tmp_path):
    preferences = labelled(40, 60, "bradley-terry", 0)
    preferences.save(tmp_path / "p.parquet", TASK.tokenizer)
    reloaded = Preferences.load(tmp_path / "p.parquet", pad_id=3)
    config = RewardModelConfig(batch_size=16)
    before = torch.random.get_rng_state()
    weights = []
    for data, seed in [(preferences, 0), (preferences, 0), (reloaded, 0), (preferences, 1)]:
        model = fresh_model()
        fit(model, data, config, torch.Generator().manual_seed(seed))
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_truth_columns_are_never_learned_from():
    preferences = labelled(40, 60, "oracle", 0)
    fields = {name: getattr(preferences, name) for name in preferences.__dataclass_fields__}
    unknown = {"utility": preferences.utility * math.nan, "probability": preferences.probability * math.nan}
    blind = Preferences(**{**fields, **unknown})
    scores, results = [], []
    for data in (preferences, blind):
        model = fresh_model()
        results.append(fit(model, data, RewardModelConfig(), torch.Generator().manual_seed(0)))
        scores.append(model(data.first))
    assert torch.equal(scores[0], scores[1])
    assert results[0].accuracy_labels == results[1].accuracy_labels
    assert math.isnan(results[1].accuracy_true)


def test_labels_of_raters_count_by_what_they_are_worth():
    preferences = labelled(10, 4, "oracle", 0)
    fields = {name: getattr(preferences, name) for name in preferences.__dataclass_fields__}
    label = torch.tensor([1.0, 1.0, 1.0, 0.0])
    pool = Preferences(**{**fields, "label": label, "rater": ["sure", "good", "random", "liar"]})
    reliability = {"sure": 1.0, "good": 0.75, "random": 0.5, "liar": 0.0}
    learned, weight = learned_labels(pool, RewardModelConfig(), reliability)
    # (label − 1/4)/(1 − 1/2) = 1.5 at a quarter of the weight; the liar says that the first is better.
    torch.testing.assert_close(learned, torch.tensor([1.0, 1.5, 0.5, 1.0]))
    torch.testing.assert_close(weight, torch.tensor([1.0, 0.25, 0.0, 1.0]))
    assert torch.equal(learned_labels(pool, RewardModelConfig(), None)[0], label)
    corrected = learned_labels(pool, RewardModelConfig(flip_rate=0.25), None)[0]
    torch.testing.assert_close(corrected, torch.tensor([1.5, 1.5, 1.5, -0.5]))
    smoothed = learned_labels(pool, RewardModelConfig(label_smoothing=0.1), None)[0]
    torch.testing.assert_close(smoothed, torch.tensor([0.9, 0.9, 0.9, 0.1]))
    with pytest.raises(UsageError, match="none for liar, random"):
        learned_labels(pool, RewardModelConfig(), {"sure": 1.0, "good": 0.75})
    with pytest.raises(UsageError, match=r"sure 1\.5"):
        learned_labels(pool, RewardModelConfig(), reliability | {"sure": 1.5})
    with pytest.raises(UsageError, match="say nothing"):
        learned_labels(pool, RewardModelConfig(), dict.fromkeys(reliability, 0.5))


def test_a_reward_model_learns_in_spite_of_a_liar_whose_reliability_is_known():
    honest = labelled(150, 400, "oracle", 0)
    fields = {name: getattr(honest, name) for name in honest.__dataclass_fields__}
    lies = np.random.default_rng(1).random(len(honest)) < 0.6
    pool = Preferences(
        **{
            **fields,
            "label": torch.where(torch.from_numpy(lies), 1 - honest.label, honest.label),
            "rater": ["liar" if lie else "honest" for lie in lies],
        }
    )
    config = RewardModelConfig(learning_rate=3e-3)
    accuracy = []
    for reliability in (None, {"liar": 0.0, "honest": 1.0}):
        model = fresh_model()
        model.normalise(sampled(20, 1))
        fit(model, pool, config, torch.Generator().manual_seed(0), reliability=reliability)
        accuracy.append(measure(model, labelled(100, 200, "oracle", 7), []).accuracy_true)
    assert accuracy[0] < 0.5
    assert accuracy[1] > 0.65


def test_progress_counts_up_to_the_total():
    seen = []
    config = RewardModelConfig(epochs=2, batch_size=16)
    preferences = labelled(40, 60, "oracle", 0)
    result = fit(fresh_model(), preferences, config, torch.Generator(), lambda *step: seen.append(step))
    steps, totals, values = zip(*seen, strict=True)
    assert list(steps) == list(range(1, totals[0] + 1))
    assert set(totals) == {len(result.losses)}
    assert [value["loss"] for value in values] == result.losses
    assert all(0 <= value["accuracy"] <= 1 for value in values)


def test_a_loss_that_is_not_a_number_stops_with_a_message():
    model = fresh_model()
    with torch.no_grad():
        model.model.score.weight.fill_(math.nan)
    with pytest.raises(TextenvError, match="loss became nan"):
        fit(model, labelled(10, 20, "oracle", 0), RewardModelConfig(), torch.Generator())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("epochs", 0),
        ("batch_size", 0),
        ("held_out", 0.0),
        ("held_out", 1.0),
        ("weight_decay", -1.0),
        ("max_grad_norm", 0.0),
        ("label_smoothing", 0.5),
        ("label_smoothing", -0.1),
        ("flip_rate", 0.5),
    ],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(UsageError, match=name):
        RewardModelConfig(**{name: value})


def test_smoothing_and_correcting_for_flips_are_not_asked_for_together():
    with pytest.raises(UsageError, match="undo each other"):
        RewardModelConfig(label_smoothing=0.1, flip_rate=0.1)
