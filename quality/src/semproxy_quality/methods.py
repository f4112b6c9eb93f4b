"""Methods by name: what is measured, and what it costs an engine to have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import matching, presses
from .caches import Compressed
from .engine import Engine, Prefill
from .product import Product, importance, profile
from .rows import CLASSES

BUDGETS = {"adaptive": {"budget": "adaptive"}, "layered": {"budget": "layered"}, "equal": {"budget": "equal"}}
DEFAULT = [
    "weighted",
    "weighted,exact=0.5",
    "semantic",
    "kvp:KVzip",
    "kvp:ExpectedAttention",
    "kvp:SnapKV",
    "kvp:KeyDiff",
    "kvp:Compactor",
    "kvp:TOVA",
    "kvp:Streaming",
    "kvp:AdaKV(SnapKV)",
    "kvp:Merging(ExpectedAttention)",
    "am",
    "am-repeat",
]


@dataclass(frozen=True)
class Method:
    """cost is a key of CLASSES. product is the policy's profile where the method is semproxy's; calibrated: it wants the model's
    head weights."""

    name: str
    cost: str
    run: Callable[[Engine, Product, Prefill, float], Compressed]
    product: dict[str, Any] | None = None
    calibrated: bool = False


def parse(name: str, budget: str = "") -> Method:
    """A method of its name:

    kvp:NAME or kvp:NAME(INNER)   a press of kvpress
    am, am-repeat                 Attention Matching
    METHOD[,KEY=VALUE...][@OPTION...]
                                  semproxy: a policy's profile; @last sends the last queries only, @noqueries none, @importance
                                  KVzip's scores too; @calibrated has the model's headWeights. budget is set where the
                                  profile does not say it.
    """
    if name.startswith("kvp:"):
        which = name.removeprefix("kvp:")
        presses.parse(which)
        return Method(name, presses.cost(which), lambda e, _, p, r: presses.compress(e, p, which, r))
    if name in ("am", "am-repeat"):
        again = name == "am-repeat"
        return Method(name, "second" if again else "all", lambda e, _, p, r: matching.compress(e, p, r, again))
    snippet, *options = name.split("@")
    if unknown := set(options) - {"last", "noqueries", "importance", "calibrated"}:
        raise ValueError(f"{name}: unknown option @{unknown.pop()}; known are @last, @noqueries, @importance and @calibrated")
    settings = profile(snippet)
    label = name
    if budget and "budget" not in settings:
        settings |= BUDGETS[budget]
        label = f"{name} ({budget})" if budget != "adaptive" else name
    important = "importance" in options
    queries = next((cost for cost, option in (("none", "noqueries"), ("last", "last")) if option in options), "all")

    def run(e: Engine, product: Product, p: Prefill, ratio: float) -> Compressed:
        more = {"importance": importance(e, p)} if important else {}
        return product.compress(p, settings, ratio, queries=queries, **more)

    return Method(label, "second" if important else queries, run, settings, "calibrated" in options)


def choose(names: list[str], budgets: list[str], most: str = "second") -> list[Method]:
    """The methods of these names, semproxy's for each budget, up to a cost class."""
    rank = list(CLASSES)
    out: dict[str, Method] = {}
    for name in names:
        for budget in budgets if not name.startswith(("kvp:", "am")) else [""]:
            m = parse(name, budget)
            if rank.index(m.cost) <= rank.index(most):
                out.setdefault(m.name, m)
    return list(out.values())
