"""The queries of a prompt, for the sidecar: it measures its fidelity with them, and fits the cores to them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch

WINDOW, STRIDED = 16, 48


@dataclass
class _Strided:
    """Queries of every `stride`-th token of a layer, [batch, q_heads, head_dim] each, by the token's index."""

    stride: int
    found: dict[int, torch.Tensor]


class Queries(dict[int, torch.Tensor]):
    """The last queries of every layer, [batch, q_heads, window, head_dim] after RoPE. strided() has those from the rest of the prompt."""

    def __init__(self, window: int, strided: int) -> None:
        super().__init__()
        self.window, self.wanted = window, strided
        self.end: dict[int, int] = {}  # tokens up to the last query, of each layer
        self._strided: dict[int, _Strided] = {}

    def see(self, layer: int, query: torch.Tensor, end: int) -> None:
        """Take the queries [batch, q_heads, n, head_dim] of the tokens before `end`."""
        n, before = query.shape[2], self.get(layer)
        if before is not None and (before.shape[0] != query.shape[0] or self.end[layer] != end - n):
            before = None  # another sequence
        if before is None:
            self._strided[layer] = _Strided(1, {})
        self[layer] = (query if before is None else torch.cat([before, query], 2))[:, :, -self.window :].detach()
        self.end[layer] = end
        if not self.wanted:
            return
        s = self._strided[layer]
        while end // s.stride - (end - n) // s.stride + len(s.found) > 2 * self.wanted:
            s.stride *= 2
            s.found = {at: q for at, q in s.found.items() if at % s.stride == 0}
        first = -(-(end - n) // s.stride) * s.stride
        for at in range(first, end, s.stride):
            s.found[at] = query[:, :, at - (end - n)].detach().clone()

    def strided(self, layer: int, first: int, end: int) -> list[tuple[int, torch.Tensor]]:
        """(index, queries [batch, q_heads, head_dim]) of about as many tokens as were wanted, evenly over first to end less the window."""
        s = self._strided.get(layer)
        if s is None:
            return []
        last = min(end, self.end[layer] - self[layer].shape[2])
        at = sorted(i for i in s.found if first <= i < last)
        if len(at) > self.wanted:
            at = [at[i * len(at) // self.wanted] for i in range(self.wanted)]
        return [(i, s.found[i]) for i in at]


_kept: ContextVar[Queries | None] = ContextVar("semproxy_queries", default=None)


@contextlib.contextmanager
def capture_queries(window: int = WINDOW, strided: int = STRIDED) -> Iterator[Queries]:
    """Keep queries of every layer of the forward passes inside, for compress(queries=...): the last ones, and some evenly
    over what came before. The model must attend with this package's function (install())."""
    kept = Queries(window, strided)
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)


def queries(layer: int, query: torch.Tensor, end: int) -> None:
    """Called by attention for every layer: end is how many tokens there are up to the last query."""
    if (kept := _kept.get()) is not None:
        kept.see(layer, query, end)
