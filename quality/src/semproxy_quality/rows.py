"""What a row of results is: a dict of JSON. Tables, pictures and predictors need nothing but rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FULL = "full"  # the method of the full cache's rows

# What a method needs besides keys and values, the cheapest first.
CLASSES = {
    "none": "no queries",
    "last": "last queries",
    "all": "queries of the context",
    "second": "second prefill",
}


def read(files: list[Path]) -> list[Row]:
    """The rows of files. A method that was measured twice on the same text counts once, the last time."""
    rows: dict[tuple[object, ...], Row] = {}
    for file in files:
        for line in file.read_text().splitlines():
            r = json.loads(line)
            place = [r.get(k) for k in ("kind", "model", "method", "ratio", "text", "mode", "case", "question")]
            rows[(*place, r["tokens"] if r["kind"] == "perplexity" else 0)] = r
    if not rows:
        sys.exit("no rows were measured")
    return list(rows.values())
