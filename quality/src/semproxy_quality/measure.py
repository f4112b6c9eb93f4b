"""The measurements: perplexity of what follows a text, and answers to questions about it. Every result is one row."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

import torch

from .caches import Compressed, whole
from .engine import BATCH, Engine, Prefill
from .methods import Method
from .product import Product
from .rows import FULL, Row
from .tasks import Case, Question
from .texts import Text

T = TypeVar("T")
PROMPT = "Read the text and answer the question.\n\n"


class Run:
    """Methods and ratios on one model. rows() of the measurements are written as they come."""

    def __init__(self, engine: Engine, product: Product, methods: list[Method], ratios: list[float], write: Callable[[Row], None]) -> None:
        self.engine, self.product, self.methods, self.ratios, self.write = engine, product, methods, ratios, write

    def _row(self, m: Method | None, ratio: float, c: Compressed, **fields: Any) -> Row:
        return {
            "model": self.engine.name,
            "method": m.name if m else FULL,
            "cost": m.cost if m else "",
            "product": bool(m and m.product),
            "ratio": ratio,
            "kept": round(c.kept(), 5),
            "tokens": c.tokens,
            **fields,
            **({"fidelity": c.fidelity} if c.fidelity else {}),
        }

    def _all(self, p: Prefill) -> Iterator[tuple[Method | None, float, Compressed]]:
        """The full cache, then every other."""
        yield None, 1.0, whole(p.keys, p.values)
        for m in self.methods:
            for ratio in self.ratios:
                yield m, ratio, m.run(self.engine, self.product, p, ratio)

    def perplexity(self, texts: list[Text], context: int, follow: int) -> None:
        """Of each text: context tokens are prefilled and compressed, the next ones forced through the model."""
        done = 0
        for number, text in enumerate(texts):
            ids = self.engine.encode(text.text)[: context + follow]
            if len(ids) < context + follow:
                continue
            began = time.monotonic()
            p = self.engine.prefill(ids[:context])
            base = 0.0
            for part in batched(self._all(p), BATCH):
                states = self.engine.follow([c for _, _, c in part], ids[context:])
                for (m, ratio, c), h in zip(part, states, strict=True):
                    loss = float(self.engine.losses(h[:-1], ids[context + 1 :])[0].mean())
                    base = loss if m is None else base
                    self.write(self._row(m, ratio, c, kind="perplexity", text=number, source=text.source, nll=loss, full=base))
            done += 1
            say(f"{self.engine.name}: text {number} ({text.source}), {time.monotonic() - began:.0f} s")
        if not done:
            raise SystemExit(f"no text is as long as {context + follow} tokens")

    def answers(self, cases: list[Case], inside: bool) -> None:
        """Of each case, the questions on its compressed context; or, inside, its first question as part of what is compressed."""
        for number, case in enumerate(cases):
            began = time.monotonic()
            before, turn = self.engine.chat(PROMPT)
            head = self.engine.encode(before)
            context = head + self.engine.encode(case.context)
            if inside:
                ask, begins, answer = self._ids(case.questions[number % len(case.questions)], turn)
                self._case(number, case, context + ask, len(head), [(begins, answer)], "inside")
            else:
                asked = [(a + b, c) for a, b, c in (self._ids(q, turn) for q in case.questions)]
                self._case(number, case, context, len(head), asked, "agnostic")
            say(f"{self.engine.name}: case {number} ({case.task}{', inside' if inside else ''}), {time.monotonic() - began:.0f} s")

    def _ids(self, q: Question, turn: str) -> tuple[list[int], list[int], list[int]]:
        """Tokens of the question, of the turn with the answer's beginning, and of the answer."""
        encode = self.engine.encode
        begins = encode(q.begins)
        return encode(f"\n\nQuestion: {q.question}"), encode(turn + q.begins), encode(q.begins + q.answer)[len(begins) :]

    def _case(self, number: int, case: Case, ids: list[int], prefix: int, asked: list[tuple[list[int], list[int]]], mode: str) -> None:
        p = self.engine.prefill(ids, prefix)
        base: list[tuple[bool, float]] = []
        for m, ratio, c in self._all(p):
            states = self.engine.ask(c, [q + a[:-1] for q, a in asked])
            for j, ((q, a), h) in enumerate(zip(asked, states, strict=True)):
                losses, hits = self.engine.losses(h[len(q) - 1 : len(q) - 1 + len(a)], a)
                right, nll = bool(hits.all()), float(losses.sum())
                if m is None:
                    base.append((right, nll))
                row = self._row(m, ratio, c, kind="answer", mode=mode, case=number, task=case.task, question=j)
                row |= {"right": right, "share": round(float(hits.float().mean()), 4), "nll": nll}
                self.write(row | {"full_right": base[j][0], "full": base[j][1]})


def batched(items: Iterator[T], count: int) -> Iterator[list[T]]:
    """So many at a time, made as they are taken."""
    while part := list(islice(items, count)):
        yield part


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def threads(count: int) -> None:
    if count:
        torch.set_num_threads(count)
