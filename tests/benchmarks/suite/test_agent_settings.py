"""`--set AGENT.FIELD=VALUE,VALUE…`: values in the field's type, every combination, and what is wrong by name."""

from __future__ import annotations

import pytest

from benchmarks.suite.agent_settings import config_of, named, parse
from textenv.errors import UsageError

AGENTS = ("ppo", "grpo", "dpo")


def test_values_have_the_type_of_their_field_and_are_combined() -> None:
    words = ["ppo.learning_rate=1e-3,5e-4", "ppo.clip_range_vf=none,0.5", "grpo.scale_rewards=false", "dpo.loss=ipo"]
    found = parse(words, AGENTS)
    assert found == {
        "ppo": [
            {"learning_rate": 1e-3, "clip_range_vf": None},
            {"learning_rate": 1e-3, "clip_range_vf": 0.5},
            {"learning_rate": 5e-4, "clip_range_vf": None},
            {"learning_rate": 5e-4, "clip_range_vf": 0.5},
        ],
        "grpo": [{"scale_rewards": False}],
        "dpo": [{"loss": "ipo"}],
    }
    assert named(found["ppo"][0]) == "learning_rate=0.001, clip_range_vf=None"
    assert config_of("ppo", found["ppo"][1]).clip_range_vf == 0.5
    assert config_of("ppo", {}).clip_range_vf == 0.2


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("learning_rate=1", r"expected AGENT\.FIELD=VALUE"),
        ("ppo.learning_rate", r"expected AGENT\.FIELD=VALUE"),
        ("a2c.learning_rate=1", "unknown agent of this sweep 'a2c'.*Known: dpo, grpo, ppo"),
        ("ppo.learning_rat=1", "unknown setting of ppo 'learning_rat'. Did you mean 'learning_rate'"),
        ("ppo.n_epochs=1.5", "'1.5' is not a whole number"),
        ("ppo.learning_rate=fast", "'fast' is not a number"),
        ("grpo.scale_rewards=1", "'1' is not true or false"),
        ("dpo.loss=sigmoyd", "unknown value 'sigmoyd'. Did you mean 'sigmoid'"),
        ("ppo.n_epochs=1,1", "twice"),
    ],
)
def test_what_is_wrong_is_named(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse([word], AGENTS)


def test_a_value_out_of_its_range_is_named_with_the_range() -> None:
    with pytest.raises(UsageError, match=r"PPOConfig\.n_epochs is 0, expected a whole number in \[1"):
        config_of("ppo", {"n_epochs": 0})
