"""Where a stock agent comes to rest on Exact-v0 under `kl="reference"`: `python -m benchmarks.fixed_point`.

Nothing is trained: the fixed point and the optimum are enumerated for several β and printed as a table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tyro
from jaxtyping import Float
from torch import Tensor

from textenv import enumeration, models, tasks
from textenv.enumeration import Objective
from textenv.language_model import LanguageModel
from textenv.responses import Responses
from textenv.rewards import GoldReward
from textenv.tasks.base import Task


@dataclass(frozen=True)
class FixedPointConfig:
    """Which rows the table has."""

    betas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.45, 0.7, 1.0)
    """Weights of the KL term, each the agent's `ent_coef` too."""


class Policy(NamedTuple):
    """What a policy is worth, and how long its responses are."""

    objective: float
    """J."""
    kl: float
    """To the reference, in nats an episode."""
    eos_rate: float
    """How many of its responses end by themselves."""
    length: float
    """Mean tokens of a response, the end-of-sequence token included."""


class Row(NamedTuple):
    """A stock agent at rest beside the best policy, for one β."""

    beta: float
    share: float
    """(J − J_ref)/(J* − J_ref) of the stock agent."""
    stock: Policy
    best: Policy


def rows(config: FixedPointConfig) -> list[Row]:
    """One for each β."""
    task = tasks.load("exact")
    reference = models.load(task.reference)
    responses = enumeration.all_responses(
        enumeration.all_prompts(task),
        vocab_size=reference.vocab_size,
        max_tokens=task.response_length,
        eos_id=reference.eos_id,
        pad_id=reference.pad_id,
    )
    return [_row(task, reference, responses, beta) for beta in config.betas]


def _row(task: Task, reference: LanguageModel, responses: Responses, beta: float) -> Row:
    reward = GoldReward(task)
    start = float(enumeration.exact_objective(task, reference, reference, reward, beta).objective)
    rest = enumeration.stock_fixed_point(task, reference, reward, beta)
    optimum = enumeration.exact_optimum(task, reference, reward, beta)

    def policy(value: Objective, logprobs: Float[Tensor, "N R"]) -> Policy:
        probs = logprobs.exp().flatten() / len(logprobs)
        ended = float(probs @ responses.ended(reference.eos_id).double())
        return Policy(float(value.objective), float(value.kl), ended, float(probs @ responses.lengths.double()))

    stock, best = policy(rest.value, rest.logprobs), policy(optimum.value, optimum.logprobs)
    return Row(beta, (stock.objective - start) / (best.objective - start), stock, best)


def markdown(table: Sequence[Row]) -> str:
    """The table as Markdown, the optimum's figures in brackets."""
    lines = [
        "| β | J | share | KL, nats | ends by EOS | tokens |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for beta, share, stock, best in table:
        cells = [
            f"{beta:g}",
            f"{stock.objective:.3f} ({best.objective:.3f})",
            f"{share:.2f}",
            f"{stock.kl:.2f} ({best.kl:.2f})",
            f"{stock.eos_rate:.1%} ({best.eos_rate:.1%})",
            f"{stock.length:.2f} ({best.length:.2f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table and returns the exit code."""
    config = tyro.cli(FixedPointConfig, prog="python -m benchmarks.fixed_point", args=arguments)
    print(f"Exact-v0, a stock agent at rest (in brackets: the optimum)\n\n{markdown(rows(config))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
