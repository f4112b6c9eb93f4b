"""How well what is known without the answer predicts what is lost: rank correlations of the sidecar's fidelity.* fields."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from . import stats
from .rows import FULL, Row
from .table import percent


@dataclass(frozen=True)
class Request:
    """A case under one method at one ratio: the share of its answers that was lost, and how much less likely they became."""

    method: str
    ratio: float
    case: tuple[str, str, int]
    lost: float  # nan where the full cache gives none
    nll: float
    fidelity: dict[str, float]


def requests(rows: Sequence[Row]) -> list[Request]:
    """One for each case, method and ratio of the rows of one model that carry fidelity."""
    groups: dict[tuple[str, float, tuple[str, str, int]], list[Row]] = defaultdict(list)
    for r in rows:
        if r["kind"] == "answer" and r["method"] != FULL and r.get("fidelity"):
            groups[r["method"], r["ratio"], (r["mode"], r["task"], r["case"])].append(r)
    return [
        Request(method, ratio, case, stats.lost(g).value, fmean(r["nll"] - r["full"] for r in g), g[0]["fidelity"])
        for (method, ratio, case), g in groups.items()
    ]


def render(rows: Sequence[Row], bound: float = 0.02) -> str:
    """For every model and field: the correlation over everything, within a ratio, and within a method at a ratio."""
    out = []
    for model in dict.fromkeys(r["model"] for r in rows):
        found = requests([r for r in rows if r["model"] == model])
        fields = sorted({name for r in found for name in r.fidelity})
        grid = {(r.method, r.ratio) for r in found}
        out.append(f"## {model}: {len(found)} requests, {len({m for m, _ in grid})} methods\n")
        out.append("Rank correlation (Spearman) with the share of answers lost / with the answers' negative log likelihood gained.")
        out.append("Within: the mean over ratios, or over methods and ratios, of the correlation inside one, weighted by its requests.\n")
        ratios = sorted({r.ratio for r in found}, reverse=True)
        head = ["field", "all", "within a ratio", "within a method and ratio", *(percent(x) for x in ratios), "requests"]
        out += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for name in fields:
            these = [r for r in found if name in r.fidelity]
            cells = [
                name,
                _pair(these, name, lambda _: 0),
                _pair(these, name, lambda r: r.ratio),
                _pair(these, name, lambda r: (r.method, r.ratio)),
                *(_pair([r for r in these if r.ratio == x], name, lambda _: 0) for x in ratios),
                str(len(these)),
            ]
            out.append("| " + " | ".join(cells) + " |")
        out += ["", *_guards(found, fields, bound), ""]
    return "\n".join(out)


def within(found: Sequence[Request], name: str, of: Callable[[Request], float], group: Callable[[Request], object]) -> float:
    """The mean of the rank correlations inside groups, weighted by their size. Groups where nothing varies do not count."""
    groups: dict[object, list[Request]] = defaultdict(list)
    for r in found:
        if not math.isnan(of(r)):
            groups[group(r)].append(r)
    parts = [(stats.spearman([r.fidelity[name] for r in g], [of(r) for r in g]), len(g)) for g in groups.values() if len(g) > 3]
    parts = [(s, n) for s, n in parts if not math.isnan(s)]
    return sum(s * n for s, n in parts) / sum(n for _, n in parts) if parts else math.nan


@dataclass(frozen=True)
class Guard:
    """A field as a guard: what it lets pass on cases that its threshold was not chosen on."""

    threshold: float  # a request passes up to it; down to it where the field falls with the loss
    rising: bool
    passed: float  # share of the held-out requests
    lost: stats.Mean  # of those that passed


def guard(found: Sequence[Request], name: str, bound: float) -> Guard | None:
    """Of every second case the loosest threshold under which the requests that pass lose no more than bound in the mean; then the
    other cases. None where no threshold does."""
    known = [r for r in found if name in r.fidelity and not math.isnan(r.lost)]
    chosen, held = ([r for r in known if r.case[2] % 2 == half] for half in (0, 1))
    rising = stats.spearman([r.fidelity[name] for r in chosen], [r.lost for r in chosen]) >= 0
    sign = 1 if rising else -1
    total, best = 0.0, math.nan
    ordered = sorted(chosen, key=lambda r: sign * r.fidelity[name])
    for i, r in enumerate(ordered):
        total += r.lost
        last = i + 1 == len(ordered) or ordered[i + 1].fidelity[name] != r.fidelity[name]
        if last and total / (i + 1) <= bound:
            best = r.fidelity[name]
    if math.isnan(best) or not held:
        return None
    passed = [r for r in held if sign * r.fidelity[name] <= sign * best]
    return Guard(best, rising, len(passed) / len(held), stats.clustered((r.case, r.lost) for r in passed))


def _guards(found: Sequence[Request], fields: Sequence[str], bound: float) -> list[str]:
    lines = [
        f"As a guard of {bound:.0%} of the answers: the threshold is chosen on every second case and held on the others.\n",
        "| field | passes | held-out requests that pass | answers that they lose |",
        "| --- | --- | --- | --- |",
    ]
    for name in fields:
        g = guard(found, name, bound)
        if g is None or not g.lost.count:
            lines.append(f"| {name} | | none | |")
        else:
            sense = "up to" if g.rising else "from"
            lines.append(f"| {name} | {sense} {g.threshold:.4g} | {g.passed:.0%} | {g.lost.value:.3f} ± {g.lost.error:.3f} |")
    return lines


def _pair(found: Sequence[Request], name: str, group: Callable[[Request], object]) -> str:
    return " / ".join(f"{within(found, name, of, group):+.2f}" for of in (lambda r: r.lost, lambda r: r.nll))
