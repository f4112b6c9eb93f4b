"""Pictures of the tables: what is lost against the slots that are kept, one panel a model and measure, a few lines each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl

from . import stats
from .rows import FULL, Row
from .table import Measure, measures, methods, percent

mpl.use("Agg")
from matplotlib import pyplot as plt

LINES = 8  # of a panel: the best ones, so that it can be read
OWN = ("#0b5cad", "#2a9d8f", "#7b4fa3", "#5a8f29", "#1f77b4", "#17becf")
OTHER = ("#b0763b", "#b5485d", "#6d7f99", "#8a8a8a", "#c9a227", "#4a4a4a", "#a65b9b", "#996b5c", "#7f9a48", "#c46a3a", "#5c7c7c", "#9a8f7a")
GAP = 0.055  # between two labels, of the panel's height


def draw(rows: Sequence[Row], out: Path) -> list[Path]:
    """loss.svg and recall.svg, and the same as PNG, as far as there is something to show."""
    files = []
    for name, value in (("loss", "nll"), ("recall", "right")):
        panels = [
            (model, m)
            for model in dict.fromkeys(r["model"] for r in rows)
            for m in measures([r for r in rows if r["model"] == model])
            if m.value == value
        ]
        if panels:
            files += _draw(panels, out / name)
    return files


def _draw(panels: list[tuple[str, Measure]], file: Path) -> list[Path]:
    figure, axes = plt.subplots(1, len(panels), figsize=(7.2 * len(panels), 5.0), squeeze=False, layout="constrained")
    colors = _colors([m for _, m in panels])
    for ax, (model, m) in zip(axes[0], panels, strict=True):
        _panel(ax, model, m, colors)
    files = [file.with_suffix(kind) for kind in (".svg", ".png")]
    for f in files:
        figure.savefig(f, dpi=130)
    plt.close(figure)
    return files


def _colors(measured: list[Measure]) -> dict[str, str]:
    """One color for each method, the same in every panel."""
    own, other = cycle(OWN), cycle(OTHER)
    rows = {r["method"]: r for m in measured for r in m.rows if r["method"] != FULL}
    return {name: next(own if r["product"] else other) for name, r in rows.items()}


def _panel(ax: Any, model: str, m: Measure, colors: dict[str, str]) -> None:
    lines = sorted((_line(m, name) for name in methods(m.rows)), key=lambda line: _area(line[1]), reverse=not m.lower)
    shown = lines[:LINES] + [line for line in lines[LINES:] if line[2]]  # semproxy's own are always there
    ends = []
    for name, points, product in shown:
        color = colors[name]
        x, y, low, high = zip(*points, strict=True)
        if product:  # the others' errors are in the table
            ax.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
        ax.plot(x, y, color=color, marker="o", markersize=4, linewidth=2.2 if product else 1.3)
        ends.append((x[-1], y[-1], name, color, product))
    ratios = sorted({r["ratio"] for r in m.rows if r["ratio"] < 1})
    ax.set_xscale("log")
    left = min(x for line in shown for x, *_ in line[1])
    ax.set_xlim(left / 2.6, max(ratios) * 1.12)
    ax.set_xticks(ratios, [percent(r) for r in ratios])
    ax.minorticks_off()
    _scale(ax, m, shown)
    _label(ax, ends)
    ax.set_title(f"{model}\n{m.title}", fontsize=9, loc="left")
    ax.set_xlabel("slots kept, of the context's tokens")
    ax.grid(axis="y", color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


Point = tuple[float, float, float, float]  # kept, value, value less its error, value and its error


def _line(m: Measure, name: str) -> tuple[str, list[Point], bool]:
    """A method's points, the largest ratio first."""
    points: list[Point] = []
    for ratio in sorted({r["ratio"] for r in m.rows if r["method"] == name}, reverse=True):
        rows = m.at(name, ratio)
        mean, kept = m.of(rows), stats.clustered((0, r["kept"]) for r in rows).value
        error = 0.0 if math.isnan(mean.error) else mean.error
        values = [mean.value, mean.value - error, mean.value + error]
        at, low, high = ((math.exp(v) - 1) * 100 for v in values) if m.lower else values  # from log perplexity
        points.append((kept, at, low, high))
    return name, points, any(r["product"] for r in m.rows if r["method"] == name)


def _area(points: list[Point]) -> float:
    return sum(p[1] for p in points) / len(points)


def _scale(ax: Any, m: Measure, lines: list[tuple[str, list[Point], bool]]) -> None:
    if m.lower:
        ax.set_ylabel("perplexity gained, %")
        ax.set_ylim(min(0.0, *(p[2] for _, points, _ in lines for p in points)), None)
        return
    full = stats.recall([r for r in m.rows if r["method"] == FULL]).value
    ax.set_ylabel("questions answered")
    ax.set_ylim(0, 1.06)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    ax.axhline(full, color="#444444", linewidth=0.8, linestyle=(0, (4, 3)))
    ax.text(ax.get_xlim()[0], full + 0.01, " full cache", ha="left", va="bottom", fontsize=8, color="#444444")


def _label(ax: Any, ends: list[tuple[float, float, str, str, bool]]) -> None:
    """Each line's name at its left end, apart from the next one's, tied to it by a thin line."""
    low, high = ax.get_ylim()
    step = (high - low) * GAP
    ends.sort(key=lambda e: e[1])
    places = [e[1] for e in ends]
    for _ in range(200):  # push apart whatever is too near, and back inside
        for i in range(1, len(places)):
            short = step - (places[i] - places[i - 1])
            if short > 0:
                places[i] += short / 2
                places[i - 1] -= short / 2
        places = [min(max(p, low + step * (0.5 + i)), high - step * (len(places) - i - 0.5)) for i, p in enumerate(places)]
    edge = ax.get_xlim()[0]
    reach = math.log(min(e[0] for e in ends) / edge)
    for (x, y, name, color, product), place in zip(ends, places, strict=True):
        stop = edge * math.exp(reach * 0.80)
        ax.plot([stop, x], [place, y], color=color, linewidth=0.5, clip_on=False)
        ax.text(stop * 0.985, place, name, ha="right", va="center", fontsize=8, color=color, fontweight="bold" if product else "normal")
