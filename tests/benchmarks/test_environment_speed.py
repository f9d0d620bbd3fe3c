"""The speed benchmark gives each second to whom it belongs, and tells both bars."""

import time

import pytest
import torch

from benchmarks import environment_speed as speed
from textenv.language_model import LanguageModel
from textenv.tasks.exact import Exact
from textenv.vector_env import TextVectorEnv

SMALL = speed.SpeedConfig(task="exact", envs_alone=16, envs_decoding=4, decoded=6, repeats=3)


def work(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize("who", ["scoring", "prompts"])
def test_what_others_compute_is_not_the_environments_time(who, monkeypatch):
    """The slow part dwarfs all the rest, whose share is noise."""
    slow = 0.02
    patched = {"scoring": (LanguageModel, "logprobs"), "prompts": (Exact, "sample_prompts")}[who]
    original = getattr(*patched)
    monkeypatch.setattr(*patched, lambda *given: (work(slow), original(*given))[1])
    times = speed.rollout_times(SMALL)
    assert getattr(times, who) >= slow
    assert times.environment < getattr(times, who)
    assert times.decoding > 0


def test_no_episode_ends_while_the_environment_is_alone(monkeypatch):
    ends = []
    step = TextVectorEnv.step

    def watched(self, actions):
        result = step(self, actions)
        ends.append(result[2].any())
        return result

    monkeypatch.setattr(TextVectorEnv, "step", watched)
    assert speed.steps_a_second(SMALL) > 0
    # Three repetitions of T − 1 steps.
    assert ends == [False] * 3 * 4


def test_both_are_printed_and_threads_are_left_as_they_were(capsys):
    torch.set_num_threads(2)
    try:
        flags = ["--task", "exact", "--envs-alone", "16", "--envs-decoding", "4", "--decoded", "6", "--repeats", "1"]
        assert speed.main(flags) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    printed = capsys.readouterr().out
    assert "16 environments of 'exact'" in printed
    assert "million token steps a second" in printed
    assert "% of decoding" in printed
