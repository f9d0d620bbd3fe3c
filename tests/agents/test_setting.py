"""What a run depends on: whole paths, and the content of every file that its flags name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from agents.rlhf import RLHFConfig, prepare
from agents.run_folder import RunFolder
from agents.setting import CAUTION
from reward_models.reward_model import RewardModel
from textenv import models
from textenv.errors import UsageError

FLAGS = RLHFConfig(
    prompts=Path("mine.txt"), model="model", response_length=5, reward="lengths_of:reward", labels=2, tokens=20
)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with prompts, a model, a reward model and a reward of one's own."""
    reference = models.load("exact")
    reference.save(tmp_path / "model")
    RewardModel.from_language_model(reference, torch.Generator().manual_seed(0)).save(tmp_path / "judge")
    (tmp_path / "mine.txt").write_text("a b\nb c\nc d\n")
    (tmp_path / "lengths_of.py").write_text("def reward(prompts, responses):\n    return list(map(len, responses))\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lengths_of", raising=False)
    return tmp_path


def test_paths_are_whole_so_that_a_run_goes_on_from_another_folder(
    files: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = prepare(replace(FLAGS, reward="judge")).config.to_json()
    assert (kept["prompts"], kept["model"], kept["reward"]) == tuple(
        str(files / name) for name in ("mine.txt", "model", "judge")
    )
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert prepare(RLHFConfig.from_json(kept)).config.to_json() == kept


def test_a_known_name_is_no_path(files: Path) -> None:
    for name in ("exact", "gold"):
        (files / name).mkdir()
    config = prepare(RLHFConfig(task="exact", model="exact", reward="gold")).config
    assert (config.model, config.reward) == ("exact", "gold")


def _other_weights(file: Path) -> None:
    save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


def _other_text(file: Path) -> None:
    file.write_text(file.read_text() + "\n# d e\n")


@pytest.mark.parametrize(
    ("reward", "file", "change", "named"),
    [
        ("lengths_of:reward", "mine.txt", _other_text, r"mine\.txt \(--prompts\)"),
        ("lengths_of:reward", "lengths_of.py", _other_text, r"lengths_of\.py \(--reward\)"),
        ("lengths_of:reward", "model/model.safetensors", _other_weights, r"model\.safetensors \(--model\)"),
        ("judge", "judge/model.safetensors", _other_weights, r"model\.safetensors \(--reward\)"),
    ],
)
def test_going_on_with_another_content_is_refused(
    files: Path, reward: str, file: str, change: Callable[[Path], None], named: str
) -> None:
    setting = prepare(replace(FLAGS, reward=reward))
    config = setting.config.to_json()
    with RunFolder.create(files / "run", config, threads=1, created="2026-01-01", inputs=setting.inputs()):
        pass
    with RunFolder.open(files / "run") as folder:
        folder.check_inputs(prepare(RLHFConfig.from_json(folder.config)).inputs())
        change(files / file)
        with pytest.raises(UsageError, match=f"other content of {named}, so"):
            folder.check_inputs(prepare(RLHFConfig.from_json(folder.config)).inputs())


def test_a_task_of_ones_own_is_an_input_too(files: Path) -> None:
    (files / "own_task.py").write_text("from textenv.tasks.exact import Exact\nclass Own(Exact):\n    pass\n")
    assert "own_task.py (--task)" in prepare(RLHFConfig(task="own_task:Own", reward="gold")).inputs()


def test_prompts_are_read_before_a_model_is_loaded(files: Path) -> None:
    with pytest.raises(UsageError, match="there is no prompts file"):
        prepare(replace(FLAGS, prompts=Path("missing.txt"), model="no model"))


def test_every_split_of_a_dataset_is_an_input(files: Path) -> None:
    for split, prompts in (("train", ["a b", "d"]), ("test", ["c"])):
        Dataset.from_dict({"prompt": prompts}).save_to_disk(files / "saved" / split)
    (files / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    inputs = prepare(replace(FLAGS, prompts=Path("saved"))).inputs()
    tables = [name for name in inputs if name.endswith(".arrow (--prompts)")]
    assert [name.partition("/")[0] for name in tables] == ["test", "train"]


def test_prompts_are_cut_where_that_is_asked_for(files: Path) -> None:
    flags = replace(FLAGS, prompt_length=2, truncate_prompts=True)
    (files / "mine.txt").write_text("a b c d\nb c\nd\n")
    task = prepare(flags).task
    assert {task.prompt_text(task.fixed_prompts(split, 1)[0]) for split in ("train", "validation", "test")} == {
        "c d", "b c", "d",
    }  # fmt: skip
    with pytest.raises(UsageError, match="'a b c d' has 4 tokens, more than the 2 that the prompt length allows"):
        prepare(replace(flags, truncate_prompts=False))
    for flag, value in (("prompt_length", 2), ("truncate_prompts", True)):
        with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')} is for prompts of your own"):
            prepare(RLHFConfig(task="exact", reward="gold", **{flag: value}))


def test_the_kl_weighs_more_while_a_learned_reward_is_followed() -> None:
    task_beta = prepare(RLHFConfig(task="exact", reward="gold")).beta
    assert prepare(RLHFConfig(task="exact")).beta == CAUTION * task_beta
    assert prepare(RLHFConfig(task="exact", agent="dpo")).beta == task_beta
    assert prepare(RLHFConfig(task="exact", beta=0.2)).beta == 0.2
