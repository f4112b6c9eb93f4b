"""Means with standard errors. What was measured on one text or one case is not independent: errors are taken over those."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rows import Row


@dataclass(frozen=True)
class Mean:
    """count is of the groups that the error was taken over."""

    value: float
    error: float
    count: int


def clustered(values: Iterable[tuple[Hashable, float]]) -> Mean:
    """The mean of (group, value) pairs, every value with the same weight, and its standard error over groups."""
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for group, value in values:
        groups[group].append(value)
    total = sum(map(len, groups.values()))
    if not total:
        return Mean(math.nan, math.nan, 0)
    mean = sum(sum(g) for g in groups.values()) / total
    if len(groups) < 2:
        return Mean(mean, math.nan, len(groups))
    spread = sum(sum(v - mean for v in g) ** 2 for g in groups.values())
    return Mean(mean, math.sqrt(spread * len(groups) / (len(groups) - 1)) / total, len(groups))


def loss(rows: Sequence[Row]) -> Mean:
    """Log of the perplexity's ratio to that of the full cache."""
    return clustered((r["text"], r["nll"] - r["full"]) for r in rows)


def recall(rows: Sequence[Row]) -> Mean:
    return clustered((r["case"], float(r["right"])) for r in rows)


def lost(rows: Sequence[Row]) -> Mean:
    """The share of the answers that the full cache gives and this one does not."""
    return clustered((r["case"], float(not r["right"])) for r in rows if r["full_right"])


def paired(rows: Sequence[Row], base: Sequence[Row], value: str) -> Mean:
    """The mean difference of a value between two methods on the same texts or questions."""
    held = {_place(r): float(r[value]) for r in base}
    return clustered((r.get("text", r.get("case")), float(r[value]) - held[_place(r)]) for r in rows if _place(r) in held)


def _place(r: Row) -> Hashable:
    return r.get("text"), r.get("mode"), r.get("case"), r.get("question")


def ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Ranks from 0; equal values share the mean of theirs."""
    x = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return ((last - 1 + last - counts) / 2.0)[inverse]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """The rank correlation; nan where one of them does not vary."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan
