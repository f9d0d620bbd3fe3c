"""What the rows come to: medians with their spread, ratios, shares of the machine's rate, slopes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from benchmarks.speed import flops
from benchmarks.speed.plan import TARGET, Shape
from benchmarks.speed.rows import Row

NOT_OTHERS = ("textenv", "plain loop", "products", "memory")
OVERHEAD = 0.5
"""Below this share of what is attainable neither arithmetic nor memory bounds, but calling small operations."""
MIDDLE = (32, 256)
"""Response lengths that most tasks have: below them what is done once an iteration counts, beyond them attention."""
SHAPE = tuple(Shape.__dataclass_fields__)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """The summary of all rows, ready for JSON."""
    groups = [list(group) for _, group in groupby(sorted(rows, key=_order), key=_order)]
    timed = [group for group in groups if group[0]["section"] in ("decode", "iterations", "stock", "concierge")]
    return {
        "processor": rows[0]["processor"] if rows else None,
        "cores": rows[0]["cores"] if rows else None,
        "races": [entry | {"times": times(group, rows)} for group in timed for entry in [_entry(group)]],
        "shares": shares(groups),
        "roofline": roofline(groups),
        "slopes": slopes(rows),
        "optimum": [time_to_optimum(group) for group in groups if group[0]["section"] == "optimum"],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = (float(each) for each in np.quantile(values, [0.25, 0.5, 0.75]))
    return {"median": median, "low": low, "high": high}


def _order(row: Row) -> tuple[Any, ...]:
    return (row["section"], row["threads"], *_shape_key(row), row["contestant"])


def _shape_key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in SHAPE)


def _shape(row: Row) -> Shape:
    return Shape(**{name: row[name] for name in SHAPE})


def _entry(group: Sequence[Row]) -> dict[str, Any]:
    """A contestant in one race."""
    first = group[0]
    return {
        **{name: first[name] for name in ("section", "contestant", "threads", *SHAPE)},
        "batch": _shape(first).batch,
        "rounds": len(group),
        "steps": sorted({row["steps"] for row in group}),
        "tokens_per_cpu_second": spread([row["tokens"] / row["cpu"] for row in group]),
        "tokens_per_second": spread([row["tokens"] / row["wall"] for row in group]),
        "peak_mib": first["peak_mib"],
        "versions": first["versions"],
    }


def times(group: Sequence[Row], rows: Iterable[Row]) -> dict[str, Any] | None:
    """How many times as many tokens a processor second as the other library in the same race; None for itself.

    Ratios are taken round by round, so that what slows the whole machine for a while cancels. `by_operations` is how
    many times as many operations a token the other executes: what is to be expected where all are equally fast.
    """
    first = group[0]
    if not first["contestant"].startswith("textenv"):
        return None
    algorithm = first["contestant"].split()[1].rstrip(",")
    others = [
        row
        for row in rows
        if (row["section"], row["threads"], _shape_key(row)) == (first["section"], first["threads"], _shape_key(first))
        and not row["contestant"].startswith(NOT_OTHERS)
        and row["contestant"].split()[1] in (algorithm, "generate")
    ]
    if not others:
        return None
    rates = {row["round"]: row["tokens"] / row["cpu"] for row in others}
    ratios = [row["tokens"] / row["cpu"] / rates[row["round"]] for row in group if row["round"] in rates]
    if not ratios:
        return None
    mine, theirs = first["executed"], others[0]["executed"]
    by_operations = theirs / mine if mine and theirs else None
    return {"than": others[0]["contestant"], **spread(ratios), "by_operations": by_operations}


def shares(groups: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """Which part of the rate of the machine's products PPO's rollout and update reach, by the model's sizes."""
    by_shape: dict[Shape, dict[str, Sequence[Row]]] = {}
    for group in groups:
        if group[0]["section"] == "roofline" and group[0]["model"] != "concierge":
            by_shape.setdefault(_shape(group[0]), {})[group[0]["contestant"]] = group
    entries = []
    for shape, found in by_shape.items():
        rates = {part: _rate(found[f"products, {part}"], "flops") for part in ("rollout", "update")
                 if f"products, {part}" in found}  # fmt: skip
        for name, networks in (("textenv ppo", 1), ("textenv ppo, two networks", 2)):
            if name not in found or len(rates) < 2:
                continue
            reached: dict[str, list[float]] = {"rollout": [], "update": []}
            for row in found[name]:
                needed = flops.ppo(shape, networks, row["tokens"])
                reached["rollout"].append(needed.rollout / row["rollout_cpu"])
                reached["update"].append(needed.update / (row["cpu"] - row["rollout_cpu"]))
            for part, values in reached.items():
                rate = statistics.median(values)
                entries.append({"model": shape.model, "contestant": name, "part": part, "gflops": rate / 1e9,
                                "machine_gflops": rates[part] / 1e9, "share": rate / rates[part],
                                "peak_mib": found[name][0]["peak_mib"]})  # fmt: skip
    return entries


def roofline(groups: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """What bounds decoding with the embedded model, by the number of responses (Williams et al. 2009)."""
    by_shape: dict[tuple[Any, ...], dict[str, Sequence[Row]]] = {}
    for group in groups:
        if group[0]["section"] == "roofline" and group[0]["model"] == "concierge":
            by_shape.setdefault(_shape_key(group[0]), {})[group[0]["contestant"]] = group
    entries = []
    for found in by_shape.values():
        if len(found) < 3:
            continue
        decode = found["textenv decode"]
        arithmetic, bandwidth = _rate(found["products, rollout"], "flops"), _rate(found["memory"], "bytes")
        intensity = sum(row["flops"] for row in decode) / sum(row["bytes"] for row in decode)
        reached, attainable = _rate(decode, "flops"), min(arithmetic, bandwidth * intensity)
        bound = "arithmetic" if attainable == arithmetic else "memory"
        entries.append(
            {
                "responses": _shape(decode[0]).episodes,
                "flops_per_byte": intensity,
                "gflops": reached / 1e9,
                "arithmetic_gflops": arithmetic / 1e9,
                "memory_gflops": bandwidth * intensity / 1e9,
                "share": reached / attainable,
                "bound_by": bound if reached >= OVERHEAD * attainable else "calls of small operations",
            }
        )
    return sorted(entries, key=lambda entry: float(entry["responses"]))


def _rate(group: Sequence[Row], unit: str) -> float:
    return statistics.median(float(row[unit] / row["cpu"]) for row in group)


AXES: dict[str, Callable[[Shape], int]] = {
    "response length": lambda shape: shape.response,
    "episodes": lambda shape: shape.episodes,
    "parameters": flops.parameters,
}


def curves(rows: Iterable[Row]) -> dict[str, list[tuple[float, float]]]:
    """Median processor seconds of an iteration along each axis, the other sizes being the smallest."""
    seconds: dict[Shape, list[float]] = {}
    for row in rows:
        if row["section"] == "scaling":
            seconds.setdefault(_shape(row), []).append(row["cpu"])
    least = Shape(prompts=min((shape.prompts for shape in seconds), default=16), epochs=1, minibatches=1)
    found = {}
    for axis, size in AXES.items():
        along = [shape for shape in seconds if _differs(shape, least, axis)]
        found[axis] = sorted((float(size(shape)), statistics.median(seconds[shape])) for shape in along)
    return {axis: points for axis, points in found.items() if len(points) > 1}


def _differs(shape: Shape, base: Shape, axis: str) -> bool:
    """Whether a shape differs from the base along one axis at most."""
    free = {"response length": {"response"}, "episodes": {"prompts"}, "parameters": {"layers", "width"}}[axis]
    return all(getattr(shape, name) == getattr(base, name) for name in SHAPE if name not in free)


def slopes(rows: Iterable[Row]) -> dict[str, float]:
    """The power of each axis that the cost of an iteration grows with."""
    found = curves(rows)
    middle = [point for point in found.get("response length", []) if MIDDLE[0] <= point[0] <= MIDDLE[1]]
    return {axis: slope(points) for axis, points in found.items()} | (
        {"response length from {} to {}".format(*MIDDLE): slope(middle)} if len(middle) > 1 else {}
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through the logarithms, by least squares."""
    x, y = (np.log([point[index] for point in points]) for index in (0, 1))
    return float(np.polyfit(x, y, 1)[0])


def time_to_optimum(group: Sequence[Row]) -> dict[str, Any]:
    """Seconds of learning until the target share of the optimum; None where it was not reached."""
    ordered = sorted(group, key=lambda row: int(row["round"]))
    first = next((number for number, row in enumerate(ordered, 1) if row["share"] >= TARGET), None)
    until = ordered[: first or 0]
    return {
        "contestant": group[0]["contestant"],
        "threads": group[0]["threads"],
        "cpu_seconds": sum(row["cpu"] for row in until) if first else None,
        "seconds": sum(row["wall"] for row in until) if first else None,
        "iterations": first,
        "best_share": max(row["share"] for row in ordered),
        "cpu_seconds_run": sum(row["cpu"] for row in ordered),
    }
