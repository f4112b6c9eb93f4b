"""One run of `quality run`: models, texts and tasks of its arguments."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import methods, models, tasks, texts
from .engine import Engine
from .measure import Run, threads
from .product import Product, calibrate
from .rows import Row

CHARS = 6  # characters of a token, more than any of the models needs for these texts


def run(args: argparse.Namespace) -> None:
    chosen = methods.choose(args.methods or methods.DEFAULT, args.budgets, args.cost_class)
    args.out.mkdir(parents=True, exist_ok=True)
    threads(args.threads)
    with (args.out / "rows.jsonl").open("a") as file:

        def write(row: Row) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        for model in args.model:
            engine = Engine(models.find(model), args.dtype)
            for m in chosen:
                if m.calibrated and m.product is not None:
                    m.product["headWeights"] = calibrate(engine.folder)
            profiles = [(m.product, ratio) for m in chosen if m.product for ratio in args.ratios]
            with Product(engine, profiles) as product:
                _measure(args, Run(engine, product, chosen, args.ratios, write))


def _measure(args: Any, run: Run) -> None:
    sources = texts.installed() if not (args.text and args.tasks) else {}
    if args.text != "none":
        for context in args.context:
            chars = (context + args.follow) * CHARS
            found = (
                texts.windows(sources, chars, args.windows, args.seed)
                if not args.text
                else spread(texts.read(Path(args.text)), args.windows)
            )
            run.perplexity(found, context, args.follow)
    if args.tasks != "none":
        cases = tasks.read(Path(args.tasks)) if args.tasks else tasks.generate(sources, args.chars, max(args.cases, args.inside), args.seed)
        cases = [c for c in cases if not args.only or c.task in args.only]
        run.answers(cases[: args.cases], inside=False)
        run.answers(cases[: args.inside], inside=True)


def spread(found: list[texts.Text], count: int) -> list[texts.Text]:
    """So many texts, of all sources in turn."""
    by: dict[str, list[texts.Text]] = {}
    for t in found:
        by.setdefault(t.source, []).append(t)
    out: list[texts.Text] = []
    while len(out) < count and any(by.values()):
        out += [left.pop(0) for left in by.values() if left][: count - len(out)]
    return out
