"""What is measured: the shapes, who runs on them, and the races of each section.

Nothing heavy is imported here, so that the process which starts the contestants stays small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

Section = Literal["decode", "iterations", "stock", "roofline", "concierge", "scaling", "optimum"]
SECTIONS: tuple[Section, ...] = get_args(Section)


@dataclass(frozen=True)
class Shape:
    """The model and the sizes of one iteration."""

    model: Literal["synthetic", "concierge", "smollm2"] = "synthetic"
    """A GPT-2 with random weights, or a model by name; these have sizes of their own."""
    layers: int = 4
    width: int = 128
    """Hidden size of the synthetic model; a head is 32 wide, the MLP four times as wide as this."""
    vocab: int = 1024
    prompt: int = 16
    """Tokens of a synthetic prompt; Concierge's have their own lengths, up to 33."""
    response: int = 32
    """The budget of response tokens, which the synthetic model always fills."""
    prompts: int = 128
    """Prompts of an iteration."""
    group: int = 1
    """Responses to each prompt."""
    epochs: int = 4
    minibatches: int = 4

    @property
    def episodes(self) -> int:
        """Responses of an iteration."""
        return self.prompts * self.group

    @property
    def batch(self) -> str:
        """Responses of an iteration as tables have them: prompts, times those to each where they are several."""
        return f"{self.prompts}" if self.group == 1 else f"{self.prompts} x {self.group}"

    @property
    def steps(self) -> int:
        """Optimiser steps that an iteration should take; those that it does take are counted."""
        return self.epochs * self.minibatches


@dataclass(frozen=True)
class Contestant:
    """Somebody who runs on a shape in a process of its own."""

    name: str
    function: str
    """"module:function", called with a workload and a clock."""
    install: str = ""
    """The command that installs what it needs beside textenv; empty where that is nothing."""
    folder: bool = False
    """Whether it needs what lies in the folder given with `--trl-ppo`."""


TRL = 'pip install -c constraints.txt ".[trl]"'
TRL_PPO = "pip install --no-deps --target FOLDER trl==1.12.0, then --trl-ppo FOLDER"
SB3 = 'pip install -c constraints.txt ".[sb3]"'

_HERE = "benchmarks.speed"

CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("textenv decode", f"{_HERE}.ours:decode"),
        Contestant("transformers generate", f"{_HERE}.ours:generate"),
        Contestant("textenv decode, bf16", f"{_HERE}.ours:decode_bf16"),
        Contestant("transformers generate, bf16", f"{_HERE}.ours:generate_bf16"),
        Contestant("textenv ppo", f"{_HERE}.ours:ppo"),
        Contestant("textenv ppo, two networks", f"{_HERE}.ours:ppo_two_networks"),
        Contestant("textenv rloo", f"{_HERE}.ours:rloo"),
        Contestant("textenv grpo", f"{_HERE}.ours:grpo"),
        Contestant("textenv dpo", f"{_HERE}.ours:dpo"),
        Contestant("textenv ppo, bf16", f"{_HERE}.ours:ppo_bf16"),
        Contestant("textenv rloo, bf16", f"{_HERE}.ours:rloo_bf16"),
        Contestant("textenv grpo, bf16", f"{_HERE}.ours:grpo_bf16"),
        Contestant("plain loop", f"{_HERE}.plain_loop:one_network"),
        Contestant("plain loop, two networks", f"{_HERE}.plain_loop:two_networks"),
        Contestant("trl ppo", f"{_HERE}.trl_trainers:ppo", TRL_PPO, folder=True),
        Contestant("trl ppo, bf16", f"{_HERE}.trl_trainers:ppo_bf16", TRL_PPO, folder=True),
        Contestant("trl rloo", f"{_HERE}.trl_trainers:rloo", TRL),
        Contestant("trl grpo", f"{_HERE}.trl_trainers:grpo", TRL),
        Contestant("trl dpo", f"{_HERE}.trl_trainers:dpo", TRL),
        Contestant("sb3 ppo", f"{_HERE}.stock:ppo", SB3),
        Contestant("products, rollout", f"{_HERE}.rates:rollout_products"),
        Contestant("products, update", f"{_HERE}.rates:update_products"),
        Contestant("memory", f"{_HERE}.rates:memory"),
        Contestant("textenv ppo, to the optimum", f"{_HERE}.ours:ppo_to_optimum"),
        Contestant("textenv rloo, to the optimum", f"{_HERE}.ours:rloo_to_optimum"),
        Contestant("textenv grpo, to the optimum", f"{_HERE}.ours:grpo_to_optimum"),
        Contestant("trl rloo, to the optimum", f"{_HERE}.trl_trainers:rloo_to_optimum", TRL),
        Contestant("trl grpo, to the optimum", f"{_HERE}.trl_trainers:grpo_to_optimum", TRL),
    )
}


class Start(NamedTuple):
    """One contestant at the start of a race."""

    contestant: Contestant
    shape: Shape


@dataclass(frozen=True)
class Race:
    """Contestants who take turns, iteration by iteration, all with the same number of threads."""

    section: Section
    starts: tuple[Start, ...]
    threads: int
    rounds: int
    target: float | None = None
    """A share of the optimum at which a contestant is done; otherwise it runs `rounds` iterations."""


TARGET = 0.8
"""The share of the optimum that is raced for."""
ONLINE = Shape()
GROUPED = replace(ONLINE, prompts=32, group=4)
CONCIERGE = Shape(model="concierge", response=24, prompts=32, group=4)
SMOLLM2 = Shape(model="smollm2", prompts=32)
SMOLLM2_PPO = replace(SMOLLM2, response=24, epochs=1, minibatches=2)
# The defaults of textenv's agents; GRPO takes one epoch.
OPTIMUM = Shape(model="concierge", response=24, prompts=16, group=4, epochs=2, minibatches=2)
PPO = ("textenv ppo", "textenv ppo, two networks", "plain loop", "plain loop, two networks", "trl ppo")
DECODE = ("textenv decode", "transformers generate")
PPO_BF16 = ("textenv ppo, bf16", "trl ppo, bf16")
BF16 = ("textenv rloo, bf16", "textenv grpo, bf16")
SIZES = {1: (4, 128), 5: (6, 256), 23: (8, 480), 60: (12, 640), 134: (12, 960)}
"""Layers and widths of the synthetic model by its millions of parameters."""


def races(
    sections: Sequence[Section], threads: Sequence[int], rounds: int, *, quick: bool, smollm2: bool, bf16: bool
) -> list[Race]:
    """What is run, in order.

    Args:
        sections: those that are asked for.
        threads: of the races between libraries; the others take one.
        rounds: iterations that are measured of each contestant.
        quick: small sizes, few of them.
        smollm2: decode and learn with SmolLM2 too.
        bf16: the processor multiplies in bfloat16, so that both are run with it too: it is textenv's default there.
    """
    found: list[Race] = []
    for section in sections:
        several = threads if section in ("decode", "iterations", "concierge") else threads[:1]
        for count in several:
            for starts in _fields(section, quick=quick, smollm2=smollm2, bf16=bf16):
                target = TARGET if section == "optimum" else None
                found.append(Race(section, tuple(starts), count, rounds, target))
    return found


def _fields(section: Section, *, quick: bool, smollm2: bool, bf16: bool) -> Iterator[list[Start]]:
    """The starting fields of a section, one race each."""
    if section == "decode":
        for shape in _decoded(smollm2):
            yield _all(shape, *DECODE, *(f"{name}, bf16" for name in DECODE if bf16))
    elif section == "iterations":
        yield _all(ONLINE, *PPO, *(PPO_BF16 if bf16 else ()))
        yield _all(GROUPED, "textenv rloo", "trl rloo", "textenv grpo", "trl grpo", *(BF16 if bf16 else ()))
        yield _all(replace(ONLINE, prompts=64, group=2), "textenv dpo", "trl dpo")
    elif section == "stock":
        yield _all(
            replace(ONLINE, prompts=8 if quick else 32), "sb3 ppo", "textenv ppo", *(PPO_BF16[:1] if bf16 else ())
        )
    elif section == "roofline":
        yield _all(ONLINE, "products, rollout", "products, update", "textenv ppo", "textenv ppo, two networks")
        for prompts in (1, 128):
            shape = replace(CONCIERGE, prompts=prompts, group=1)
            yield _all(shape, "products, rollout", "memory", "textenv decode")
        if smollm2:
            yield _all(SMOLLM2_PPO, "products, rollout", "products, update", "textenv ppo")
    elif section == "concierge":
        yield _all(CONCIERGE, *PPO, *(PPO_BF16 if bf16 else ()))
    elif section == "scaling":
        yield from ([Start(CONTESTANTS["textenv ppo"], shape)] for shape in scaled(quick=quick))
    else:
        starts = _all(OPTIMUM, "textenv rloo, to the optimum", "trl rloo, to the optimum")
        if not quick:
            starts += _all(OPTIMUM, "textenv ppo, to the optimum")
            starts += _all(replace(OPTIMUM, epochs=1), "textenv grpo, to the optimum", "trl grpo, to the optimum")
        yield starts


def _decoded(smollm2: bool) -> Iterator[Shape]:
    """64 and 128 responses, with a prompt each and, as agents draw them, with four to a prompt; a real model's."""
    for responses in (64, 128):
        for group in (1, CONCIERGE.group):
            yield replace(CONCIERGE, prompts=responses // group, group=group)
    if smollm2:
        yield SMOLLM2


def scaled(*, quick: bool) -> Iterator[Shape]:
    """One step from a common small shape in each direction: response length, batch, model."""
    base = Shape(prompts=16, epochs=1, minibatches=1)
    for response in (16, 32, 64) if quick else (16, 32, 64, 128, 256, 512):
        yield replace(base, response=response)
    for prompts in (32, 64, 128) if quick else (32, 64, 128, 256, 512, 1024):
        yield replace(base, prompts=prompts)
    for millions in (5,) if quick else (5, 23, 60, 134):
        layers, width = SIZES[millions]
        yield replace(base, layers=layers, width=width)


def _all(shape: Shape, *names: str) -> list[Start]:
    return [Start(CONTESTANTS[name], shape) for name in names]
