"""The tables, in Markdown: perplexity and recall of every method at every ratio, with standard errors and paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from . import stats
from .rows import CLASSES, FULL, Row
from .stats import Mean

MODES = {"agnostic": "the question comes after", "inside": "the question is inside what is compressed"}


@dataclass(frozen=True)
class Measure:
    """One measure of some rows, and which way it is better."""

    title: str
    rows: list[Row]
    of: Callable[[Sequence[Row]], Mean]
    value: str  # the field whose paired differences are told
    show: Callable[[Mean], str]
    lower: bool

    def at(self, method: str, ratio: float) -> list[Row]:
        return [r for r in self.rows if r["method"] == method and r["ratio"] == ratio]


def measures(rows: Sequence[Row]) -> list[Measure]:
    """Every measure that the rows of one model hold."""
    out = []
    text = [r for r in rows if r["kind"] == "perplexity"]
    for tokens in sorted({r["tokens"] for r in text}):
        these = [r for r in text if r["tokens"] == tokens]
        title = f"perplexity, ratio to the full cache, {tokens} tokens ({len({r['text'] for r in these})} texts)"
        out.append(Measure(title, these, stats.loss, "nll", _ratio, True))
    for mode, words in MODES.items():
        asked = [r for r in rows if r["kind"] == "answer" and r["mode"] == mode]
        full = [r for r in asked if r["method"] == FULL]
        if asked:
            texts, share = len({r["case"] for r in full}), _share(stats.recall(full))
            title = f"recall, {words} ({len(full)} questions on {texts} texts, full cache {share})"
            out.append(Measure(title, asked, stats.recall, "right", _share, False))
    return out


def methods(rows: Iterable[Row]) -> list[str]:
    """In the order in which they were measured, without the full cache."""
    return list(dict.fromkeys(r["method"] for r in rows if r["method"] != FULL))


def render(rows: Sequence[Row], reference: str = "") -> str:
    """All tables of all models. reference is the method that differences are taken to; by default the first of semproxy's."""
    out = []
    for model in dict.fromkeys(r["model"] for r in rows):
        here = [r for r in rows if r["model"] == model]
        base = reference or next((r["method"] for r in here if r["product"]), methods(here)[0])
        out.append(f"## {model}\n")
        for m in measures(here):
            out += [f"### {m.title[0].upper()}{m.title[1:]}\n", _table(m, base), ""]
            if m.value == "right":
                out += [_by_task(m), ""]
        out += [_behind(here, base), ""]
    return "\n".join(out)


def _table(m: Measure, base: str) -> str:
    ratios = sorted({r["ratio"] for r in m.rows if r["method"] != FULL}, reverse=True)
    names = sorted(methods(m.rows), key=lambda name: _order(m, name, ratios))
    head = ["method", "needs", *(percent(r) for r in ratios), *(f"{percent(r)}, difference" for r in ratios), "kept"]
    lines = [_line(head), _line(["---"] * len(head))]
    for name in names:
        rows = [r for r in m.rows if r["method"] == name]
        values = [m.show(m.of(m.at(name, r))) if m.at(name, r) else "" for r in ratios]
        differences = ["" if name == base or not m.at(name, r) else _difference(m, name, base, r) for r in ratios]
        kept = " / ".join(f"{stats.clustered((0, r['kept']) for r in m.at(name, x)).value:.3f}" for x in ratios if m.at(name, x))
        bold = f"**{name}**" if rows[0]["product"] else name
        lines.append(_line([bold, CLASSES[rows[0]["cost"]], *values, *differences, kept]))
    note = f"Differences are to `{base}`, on the same texts: in log perplexity." if m.lower else f"Differences are to `{base}`."
    return "\n".join([*lines, "", note])


def _order(m: Measure, name: str, ratios: list[float]) -> float:
    values = [m.of(m.at(name, r)).value for r in ratios if m.at(name, r)]
    return (1 if m.lower else -1) * sum(values) / len(values)


def _difference(m: Measure, name: str, base: str, ratio: float) -> str:
    d = stats.paired(m.at(name, ratio), m.at(base, ratio), m.value)
    return f"{d.value:+.3f} ± {d.error:.3f}" if d.count else ""


def _by_task(m: Measure) -> str:
    """Of the answers that the full cache gives: the share that is lost, by kind of task, all ratios together."""
    tasks = list(dict.fromkeys(r["task"] for r in m.rows))
    head = ["answers lost, of those that the full cache gives", *tasks]
    full = [r for r in m.rows if r["method"] == FULL]
    lines = [_line(head), _line(["---"] * len(head))]
    lines.append(_line(["recall of the full cache", *(_share(stats.recall([r for r in full if r["task"] == t])) for t in tasks)]))
    for name in methods(m.rows):
        these = [r for r in m.rows if r["method"] == name]
        lines.append(_line([name, *(_share(stats.lost([r for r in these if r["task"] == t])) for t in tasks)]))
    return "\n".join(lines)


def _behind(rows: Sequence[Row], base: str) -> str:
    """Where the reference is behind a method that needs no more than it does and is not semproxy's."""
    rank = list(CLASSES)
    own = next((r["cost"] for r in rows if r["method"] == base), rank[-1])
    found = []
    for m in measures(rows):
        for name in methods(m.rows):
            of = next(r for r in m.rows if r["method"] == name)
            if of["product"] or rank.index(of["cost"]) > rank.index(own):
                continue
            for ratio in sorted({r["ratio"] for r in m.rows if r["method"] == name}, reverse=True):
                d = stats.paired(m.at(name, ratio), m.at(base, ratio), m.value)
                if d.count and (d.value < 0) == m.lower and d.value != 0:
                    found.append(f"- {m.title.split(' (')[0]}, {percent(ratio)}: behind {name} by {abs(d.value):.3f} ± {d.error:.3f}")
    head = f"`{base}` ({CLASSES[own]}) beside what needs no more than it does"
    return f"{head}: ahead everywhere, or level." if not found else "\n".join([f"{head}:", "", *found])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def percent(ratio: float) -> str:
    return f"{ratio * 100:g} %"


def _ratio(m: Mean) -> str:
    value = math.exp(m.value)
    return f"{value:.4f} ± {value * m.error:.4f}"


def _share(m: Mean) -> str:
    return f"{m.value:.3f} ± {m.error:.3f}" if m.count else ""
