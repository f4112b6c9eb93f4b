"""Texts to measure with: what a clone and an installed Python and Go hold anyway, or a file.

Nothing of it is shipped here. prose: the Bible (configs/eval) and Newton's Opticks (Go's own test data); manual: Python's language
reference; code: Python's and Go's standard libraries.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROSE, CODE = ("kjv", "opticks"), ("python", "go")


@dataclass(frozen=True)
class Text:
    source: str
    text: str


def read(path: Path) -> list[Text]:
    """A file with {"source": ..., "text": ...} on every line."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    return [Text(row.get("source", path.stem), row["text"]) for row in rows if "text" in row]


def installed() -> dict[str, str]:
    """All of every source that this machine has, by its name."""
    found = {"kjv": "\n\n".join(t.text for t in read(ROOT / "configs" / "eval" / "text.jsonl")), "pyref": _reference(), "python": _python()}
    if go := _go_root():
        opticks = go / "src" / "testdata" / "Isaac.Newton-Opticks.txt"
        if opticks.is_file():
            found["opticks"] = opticks.read_text(errors="replace")
        found["go"] = "\n".join(f.read_text() for f in _some(go / "src" / "net", "*.go") if not f.name.endswith("_test.go"))
    return {name: text for name, text in found.items() if text}


def windows(sources: dict[str, str], chars: int, count: int, seed: int) -> list[Text]:
    """Pieces of so many characters, from all sources in turn, that do not overlap. A source that is used up drops out."""
    rng = random.Random(seed)
    places = {name: [at * chars for at in range(len(text) // chars)] for name, text in sorted(sources.items())}
    for at in places.values():
        rng.shuffle(at)
    out: list[Text] = []
    while len(out) < count and any(places.values()):
        for name, at in places.items():
            if at and len(out) < count:
                start = at.pop()
                out.append(Text(name, whole_lines(sources[name][start : start + chars])))
    return out


def whole_lines(piece: str) -> str:
    """Without the line that the cut began in."""
    first = piece.find("\n") + 1
    return piece[first:] if 0 < first < len(piece) // 4 else piece


def _reference() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        return ""
    return "\n\n".join(text for _, text in sorted(topics.items()) if len(text) > 2000)


def _python() -> str:
    folder = Path(sysconfig.get_paths()["stdlib"])
    return "\n".join(f.read_text(errors="replace") for f in _some(folder, "*.py"))


def _some(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder, but tables and the smallest."""
    files = sorted(folder.glob(pattern))
    return [f for f in files if f.stat().st_size > 4000 and not re.match(r"_|.*(data|table|topics)", f.name)][:60]


def _go_root() -> Path | None:
    try:
        said = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return Path(said.stdout.strip())
