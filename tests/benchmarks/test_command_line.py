from __future__ import annotations

import json
import shlex

import pytest

from agents import load_agent
from agents.rlhf import RLHFConfig
from benchmarks.command_line import command, flat
from benchmarks.train import parse


@pytest.mark.parametrize(
    "words",
    [
        "--agent ppo --task exact --seed 3",
        "--agent ppo --task concierge --reward gold --clip-range-vf None --kl-target 4.5 --whiten-rewards --beta 0.1",
        "--agent a2c --task text --model 'my model' --prompts 'my prompts.txt' --reward my_module:judge",
        "--agent a2c --task exact --reward-model.epochs 2 --reward-model.learning-rate 3e-05 --labels 12",
    ],
)
def test_the_command_asks_for_the_same_again(words: str) -> None:
    config, _ = parse(shlex.split(words))
    kept = json.loads(json.dumps(config.to_json()))
    again, options = parse(shlex.split(command(kept, threads=2))[2:])
    assert again.to_json() == config.to_json()
    assert options.threads == 2


def test_defaults_are_left_out() -> None:
    config = RLHFConfig(task="exact", algorithm=load_agent("ppo").config_class())
    expected = "textenv train --task exact --agent ppo --reward learned --seed 0 --threads 1"
    assert command(config.to_json(), threads=1) == expected


def test_nothing_is_left_out_for_an_agent_that_is_not_here() -> None:
    config = {"agent": "elsewhere", "seed": 0, "clip": {"values": False}, "notes": "it's"}
    expected = "textenv train --agent elsewhere --seed 0 --clip.no-values --notes 'it'\"'\"'s' --threads 4"
    assert command(config, threads=4) == expected


def test_nested_names_are_joined_by_dots() -> None:
    assert flat({"a": 1, "b": {"c": {"d": 2}, "e": None}}) == {"a": 1, "b.c.d": 2, "b.e": None}
