"""Questions about long texts: how many of their answers an engine gives, exactly and on cores.

A file has one case a line: {"task", "context", "qs": [{"q": question, "p": how the answer begins, "a": the answer}]}.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..chat import around

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Question:
    prompt: list[int]  # behind the context
    answer: list[int]


@dataclass(frozen=True)
class Case:
    task: str
    context: list[int]
    questions: list[Question]


def read(path: Path, tokenizer: Any, count: int) -> list[Case]:
    """The first `count` cases of a file, as a user's message in the model's chat template."""
    before, after = around(tokenizer)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    out = []
    for line in path.read_text().splitlines()[:count]:
        row = json.loads(line)
        asked = []
        for q in row["qs"]:
            begins = encode(q["p"])
            turn = encode(f"\n\nQuestion: {q['q']}") + encode(after + q["p"])
            asked.append(Question(turn, encode(q["p"] + q["a"])[len(begins) :]))
        out.append(Case(row["task"], encode(before + "Read the text and answer the question.\n\n") + encode(row["context"]), asked))
    return out
