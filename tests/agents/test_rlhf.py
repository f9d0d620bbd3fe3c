"""The whole loop on Exact-v0, where every number can be checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from agents.a2c import A2CConfig
from agents.dpo import DPOConfig
from agents.listener import Stopped
from agents.ppo import PPOConfig
from agents.rlhf import Loop, RLHFConfig, prepare
from agents.run_folder import RunFolder
from agents.seeds import Seeds
from agents.sft import SFTConfig
from reward_models.fitting import RewardModelConfig
from reward_models.labels import Labels
from reward_models.reward_model import RewardModel
from textenv import models
from textenv.demonstrations import Demonstrations
from textenv.enumeration import exact_objective, exact_optimum
from textenv.errors import UsageError
from textenv.preferences import Preferences
from textenv.rewards import GoldReward
from textenv.tasks.exact import Exact

SMALL = RLHFConfig(
    task="exact",
    agent="a2c",
    labels=90,
    tokens=1500,
    test_prompts=4,
    test_samples=8,
    algorithm=A2CConfig(n_prompts=16, group_size=4),
)

SUMMARY_KEYS = (
    "task agent reward rater seed gold_before gold_after reward_before reward_after kl objective objective_reference "
    "objective_optimum optimum_stderr share reward_model_accuracy labels tokens seconds peak_rss_mb"
).split()


class Quiet:
    """Counts the iterations of learning, and stops the run after some of them."""

    def __init__(self, iterations: int | None = None) -> None:
        self.left = iterations
        self.stages: list[str] = []

    def progress(self, stage: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
        assert done >= 0
        if stage == "reinforce" and numbers and self.left is not None:
            self.left -= 1

    def end(self, stage: str, seconds: float) -> None:
        self.stages.append(stage)

    def stopping(self) -> bool:
        return self.left is not None and self.left <= 0


@contextmanager
def new_folder(path: Path, config: RLHFConfig) -> Iterator[RunFolder]:
    with RunFolder.create(path, prepare(config).config.to_json(), threads=1, created="2026-01-01") as folder:
        yield folder


def run(path: Path, config: RLHFConfig, listener: Quiet | None = None) -> dict[str, Any]:
    with new_folder(path, config) as folder:
        return Loop(prepare(config), folder, listener or Quiet()).run()


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((path / "checkpoints").iterdir())[-1] / "state.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_costs(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if not key.startswith(("seconds", "peak_rss"))}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "learned"
    run(path, SMALL)
    return path


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "gold"
    run(path, replace(SMALL, reward="gold"))
    return path


def summary_of(path: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return summary


def test_the_summary_has_what_was_promised(learned: Path) -> None:
    summary = summary_of(learned)
    assert set(SUMMARY_KEYS) <= summary.keys()
    assert (summary["task"], summary["agent"], summary["reward"], summary["seed"]) == ("exact", "a2c", "learned", 0)
    assert summary["tokens"] >= 1500
    stages = {key: value for key, value in summary.items() if key.startswith("seconds_")}
    assert set(stages) == {f"seconds_{s}" for s in ("reference", "compare", "reward_model", "reinforce", "evaluate")}
    assert summary["seconds"] == pytest.approx(sum(stages.values()))


def test_labels_are_spent_as_budgeted_and_kept(learned: Path) -> None:
    preferences = Preferences.load(learned / "preferences.parquet", pad_id=0)
    assert len(preferences) == summary_of(learned)["labels"] == 90
    calibration = json.loads((learned / "reward_model_calibration.json").read_text())
    assert summary_of(learned)["reward_model_accuracy"] == calibration["accuracy_true"]


def test_people_of_a_population_answer_each_comparison(tmp_path: Path) -> None:
    (tmp_path / "town.toml").write_text("raters = 5\n[groups.a]\n[groups.b]\nmistake = 1\nweights = { ended = 2 }\n")
    path, config = tmp_path / "run", replace(SMALL, rater=str(tmp_path / "town.toml"), raters_per_item=3)
    summary = run(path, config)
    labels = Labels.load(path / "labels.parquet")
    preferences = Preferences.load(path / "preferences.parquet", Exact().tokenizer.pad_token_id)
    assert summary["labels"] == len(labels) == 90
    assert len(preferences) == 30
    assert set(labels.group) == {"a", "b"}
    assert preferences.label.tolist() == pytest.approx(labels.item_label.reshape(30, 3).mean(axis=1))
    asked = replace(config, consensus="majority", gold_rate=0.2)
    run(tmp_path / "judged", asked)
    labels = Labels.load(tmp_path / "judged" / "labels.parquet")
    assert labels.gold.mean() == pytest.approx(0.2)
    preferences = Preferences.load(tmp_path / "judged" / "preferences.parquet", Exact().tokenizer.pad_token_id)
    assert set(preferences.label.tolist()) <= {0.0, 0.5, 1.0}
    # A run does not go on with another file.
    assert any("town.toml (--rater)" in name for name in prepare(config).inputs())


def test_the_reward_is_normalised_on_the_reference(learned: Path) -> None:
    preferences = Preferences.load(learned / "preferences.parquet", pad_id=0)
    scores = RewardModel.load(learned / "reward_model")(preferences.paired()).view(-1, 2)
    assert float(scores.mean()) == pytest.approx(0, abs=0.3)
    assert float(scores.var(dim=1).mean().sqrt()) == pytest.approx(1, abs=0.3)


def test_objectives_are_those_of_enumeration(gold: Path) -> None:
    summary, task, reference = summary_of(gold), Exact(), models.load("exact")
    reward = GoldReward(task)
    policy = reference.copy()
    parameters = dict(policy.model.named_parameters())
    for name, tensor in weights(gold).items():
        if name.startswith("policy.trunk."):
            parameters[name.removeprefix("policy.trunk.")].data.copy_(tensor)
    optimum = float(exact_optimum(task, reference, reward, task.beta).value.objective)
    start = float(exact_objective(task, reference, reference, reward, task.beta).objective)
    reached = float(exact_objective(task, policy, reference, reward, task.beta).objective)
    assert summary["objective_optimum"] == pytest.approx(optimum, rel=1e-5)
    assert summary["objective_reference"] == pytest.approx(start, rel=1e-5)
    assert summary["objective"] == pytest.approx(reached, rel=1e-4)
    assert summary["share"] == pytest.approx((reached - start) / (optimum - start), rel=1e-3)
    assert summary["optimum_stderr"] == 0
    assert summary["reward_share"] == pytest.approx(summary["share"])


def test_the_policy_gains_truth_from_true_rewards(gold: Path) -> None:
    summary = summary_of(gold)
    assert summary["objective"] > summary["objective_reference"] + 0.1
    assert summary["kl"] > 0.01
    assert summary["labels"] == 0
    assert summary["rater"] is None
    assert not (gold / "preferences.parquet").exists()


def test_metrics_and_samples_are_rows(learned: Path) -> None:
    rows = [row for part in sorted((learned / "metrics").iterdir()) for row in pq.read_table(part).to_pylist()]
    assert rows[-1]["timesteps"] == summary_of(learned)["tokens"]
    assert {"timesteps", "seconds", "reward", "gold", "kl", "objective", "beta", "entropy"} <= rows[0].keys()
    samples = pq.read_table(learned / "samples.parquet").to_pylist()
    assert len(samples) == 4
    for sample in samples:
        assert len(sample["tokens_after"]) == len(sample["token_rewards_after"])


def test_the_seed_pairs_agents(learned: Path, tmp_path: Path) -> None:
    other = replace(SMALL, agent="ppo", algorithm=PPOConfig(n_prompts=4, group_size=2), tokens=20)
    first, second = summary_of(learned), run(tmp_path / "ppo", other)
    for key in ("gold_before", "reward_before", "reward_model_accuracy"):
        assert first[key] == second[key]


def test_equal_seeds_give_equal_runs_and_others_others(learned: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "again", SMALL)
    assert without_costs(again) == without_costs(summary_of(learned))
    assert equal(weights(tmp_path / "again"), weights(learned))
    run(tmp_path / "other", replace(SMALL, seed=1))
    assert not equal(weights(tmp_path / "other"), weights(learned))


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_weights(learned: Path, tmp_path: Path, iterations: int) -> None:
    with new_folder(tmp_path / "run", SMALL) as folder:
        with pytest.raises(Stopped):
            Loop(prepare(SMALL), folder, Quiet(iterations)).run()
        assert folder.summary is None
    with RunFolder.open(tmp_path / "run") as folder:
        listener = Quiet()
        summary = Loop(prepare(RLHFConfig.from_json(folder.config)), folder, listener).run()
        assert listener.stages == ["reinforce", "evaluate"]
    assert without_costs(summary) == without_costs(summary_of(learned))
    assert equal(weights(tmp_path / "run"), weights(learned))


def test_a_stage_that_was_cut_off_gives_the_same_again(learned: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", replace(SMALL, tokens=20))
    made = load_file(tmp_path / "run" / "reward_model" / "model.safetensors")
    (tmp_path / "run" / "stages" / "reward_model.json").unlink()
    (tmp_path / "run" / "summary.json").unlink()
    with RunFolder.open(tmp_path / "run") as folder:
        Loop(prepare(RLHFConfig.from_json(folder.config)), folder, Quiet()).run()
    assert equal(load_file(tmp_path / "run" / "reward_model" / "model.safetensors"), made)


def test_a_learned_reward_serves_another_run(learned: Path, tmp_path: Path) -> None:
    summary = run(tmp_path / "run", replace(SMALL, reward=str(learned / "reward_model"), tokens=20))
    assert summary["labels"] == 0
    assert summary["reward_before"] == pytest.approx(summary_of(learned)["reward_before"], abs=1e-5)


def test_demonstrations_are_learned_from_without_labels_or_reward(tmp_path: Path) -> None:
    config = replace(SMALL, agent="sft", demonstrations=8, algorithm=SFTConfig(batch_size=4), tokens=200)
    summary = run(tmp_path / "run", config)
    assert (summary["reward"], summary["rater"], summary["labels"]) == (None, None, 0)
    assert summary["objective"] is not None
    demonstrations = Demonstrations.load(tmp_path / "run" / "demonstrations.parquet", pad_id=0)
    assert len(demonstrations) == 8
    assert not (tmp_path / "run" / "preferences.parquet").exists()
    with new_folder(tmp_path / "cut", config) as folder, pytest.raises(Stopped):
        Loop(prepare(config), folder, Quiet(2)).run()
    with RunFolder.open(tmp_path / "cut") as folder:
        Loop(prepare(RLHFConfig.from_json(folder.config)), folder, Quiet()).run()
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "run"))


def test_configs_survive_json() -> None:
    config = prepare(replace(SMALL, reward_model=RewardModelConfig(epochs=3))).config
    assert RLHFConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(UsageError, match="does not fit this version"):
        RLHFConfig.from_json(config.to_json() | {"surprise": 1})
    for lacking in ("agent", "labels", "n_prompts"):
        with pytest.raises(UsageError, match=lacking):
            RLHFConfig.from_json({name: value for name, value in config.to_json().items() if name != lacking})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent": "a3c"}, "Did you mean 'a2c'"),
        ({"task": "exactly"}, "Did you mean 'exact'"),
        ({"reward": "golden"}, "Did you mean 'gold'"),
        ({"rater": "orakel"}, "Did you mean 'oracle'"),
        ({"model": "exat"}, "Did you mean 'exact'"),
        ({"labels": 1}, "--labels is 1"),
        ({"raters_per_item": 0}, "--raters-per-item is 0"),
        ({"raters_per_item": 46}, "--labels is 90, but with --raters-per-item 46 two comparisons take 92"),
        ({"consensus": "dawid"}, "Did you mean 'dawid-skene'"),
        ({"gold_rate": 2.0}, "gold_rate is 2.0"),
        ({"rater": "gone.toml"}, "there is no population file"),
        ({"demonstrations": 0}, "--demonstrations is 0"),
        ({"agent": "sft", "algorithm": None, "reward": "gold"}, "learns from demonstrations and from no reward"),
        ({"tokens": 0}, "--tokens is 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"beta": float("nan")}, "--beta is nan"),
        ({"max_kl": 0.0}, "--max-kl is 0.0, expected a number above 0"),
        ({"max_kl": float("inf")}, "--max-kl is inf"),
        ({"labels_per_prompt": 7}, "make 6 pairs"),
        ({"algorithm": PPOConfig()}, "takes A2CConfig"),
        ({"task": "text"}, "--prompts FILE"),
        ({"task": None, "prompts": Path("mine.txt")}, "--model"),
        ({"prompts": Path("mine.txt")}, "--prompts is for prompts of your own"),
        ({"response_length": 9}, "--response-length is for prompts of your own"),
        ({"task": "nowhere:Task"}, "could not be imported"),
        ({"reward": "nowhere:reward"}, "could not be imported"),
        ({"reward": "math:pi"}, "is a float, expected a function of prompts and responses"),
        ({"reward": "collections:OrderedDict"}, "is a type, expected a function"),
        ({"reward": "math:sqrt"}, "cannot be called with a list of prompts and a list of responses"),
        ({"reward": ".a:b"}, "could not be imported"),
        ({"beta": 0.0, "algorithm": A2CConfig(kl_target=1.0)}, "start from a positive beta"),
        (
            {"beta": 0.0, "agent": "online-dpo", "algorithm": None},
            "--beta is 0, by which the agent 'online-dpo' weighs",
        ),
        (
            {"algorithm": A2CConfig(gradient_accumulation=17)},
            r"A2CConfig.gradient_accumulation is 17, expected a whole number in \[1, 16\]",
        ),
        (
            {"agent": "ppo", "algorithm": PPOConfig(n_prompts=9, n_minibatches=2, gradient_accumulation=6)},
            r"is 6, expected a whole number in \[1, 5\]",
        ),
        (
            {"agent": "sft", "algorithm": SFTConfig(batch_size=8, gradient_accumulation=9)},
            r"is 9, expected a whole number in \[1, 8\]",
        ),
        (
            {"agent": "sft", "algorithm": SFTConfig(batch_size=513)},
            r"SFTConfig.batch_size is 513, expected a whole number in \[1, 512\], because --demonstrations is 512",
        ),
        (
            {"agent": "dpo", "algorithm": DPOConfig(batch_size=31), "raters_per_item": 3},
            r"DPOConfig.batch_size is 31, expected a whole number in \[1, 30\], because 90 labels come to 30",
        ),
        ({"beta": 0.0, "agent": "dpo", "algorithm": None}, "--beta is 0, by which the agent 'dpo' weighs"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(replace(SMALL, **change))


def test_a_batch_may_be_all_that_there_is(learned: Path) -> None:
    few = replace(SMALL, agent="dpo", labels=8, algorithm=DPOConfig())
    assert prepare(few).config.algorithm.batch_size == 32  # The default is for any number of labels.
    prepare(replace(few, labels=90, algorithm=DPOConfig(batch_size=90, gradient_accumulation=90)))
    prepare(replace(few, labels=90, demonstration_share=0.1, algorithm=DPOConfig(batch_size=100)))
    given = replace(few, preferences=learned / "preferences.parquet")
    prepare(replace(given, algorithm=DPOConfig(batch_size=90)))
    with pytest.raises(UsageError, match=r"batch_size is 91, expected .* \[1, 90\], because .*parquet has 90 comp"):
        prepare(replace(given, algorithm=DPOConfig(batch_size=91)))


def test_own_prompts_have_no_truth_to_compare_by(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"{' '.join(word)}\n" for word in ("abc", "bca", "cab", "aab", "bbc", "cca", "dae", "eda")))
    config = RLHFConfig(prompts=file, model="exact", response_length=5)
    with pytest.raises(UsageError, match="no known truth"):
        prepare(config)
    with pytest.raises(UsageError, match="nobody can choose the best of its responses"):
        prepare(replace(config, agent="sft"))
    with pytest.raises(UsageError, match="no gold score"):
        prepare(replace(config, reward="gold"))


def test_without_truth_the_rest_is_still_said(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("a b\nb c\nc d\nd e\ne a\na c\nb d\nc e\n")
    (tmp_path / "lengths.py").write_text("def reward(prompts, responses):\n    return list(map(len, responses))\n")
    config = replace(
        SMALL, task=None, prompts=file, model="exact", response_length=5, reward="lengths:reward", tokens=200
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        summary = run(tmp_path / "run", config)
    assert summary["task"] == "text"
    for key in ("gold_before", "gold_after", "objective", "objective_optimum", "share", "reward_model_accuracy"):
        assert summary[key] is None
    for key in ("reward_before", "reward_after", "kl", "reward_objective", "reward_objective_optimum"):
        assert isinstance(summary[key], float)


def test_a_model_with_another_vocabulary_is_refused(tmp_path: Path) -> None:
    models.load("exact").save(tmp_path / "model")
    file = tmp_path / "model" / "tokenizer.json"
    file.write_text(file.read_text().replace('"e"', '"z"'))
    with pytest.raises(UsageError, match="another vocabulary"):
        prepare(replace(SMALL, model=str(tmp_path / "model")))


def test_a_precision_that_the_model_lacks_is_refused_before_anything_runs(tmp_path: Path) -> None:
    reference = models.load("exact")
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=reference.vocab_size, max_position_embeddings=32, **sizes))
    replace(reference, model=model).save(tmp_path / "model")
    config = replace(SMALL, model=str(tmp_path / "model"))
    assert prepare(config).reference.model.config.model_type == "gpt_neox"
    with pytest.raises(UsageError, match=r"precision is bfloat16, .* is a 'gpt_neox' model in torch.float32"):
        prepare(replace(config, algorithm=A2CConfig(precision="bfloat16")))


def test_generators_depend_on_seed_and_name_alone() -> None:
    first = Seeds(3)
    first.numpy("rater").random(100)
    assert first.numpy("rater").random() == Seeds(3).numpy("rater").random()
    assert first.numpy("rater").random() != Seeds(3).numpy("bootstrap").random()
    assert first.numpy("rater").random() != Seeds(4).numpy("rater").random()
    draws = [torch.rand(1, generator=Seeds(seed).torch("evaluation")).item() for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]
    assert 0 <= first.integer("agent") < 2**31
