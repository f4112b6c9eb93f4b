"""Queries of a prompt, taken as they pass a layer's attention: what the sidecar measures a page's loss by.

A request's queries are found by the slots that its tokens are written to, which no two tokens of a step share. Nothing is taken
while a CUDA graph of decoding steps is replayed, in which no Python runs; prompts are computed outside of those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

LAST, SPREAD = 16, 48  # queries of the last tokens of a prompt, and of tokens spread evenly over the rest


@dataclass(frozen=True)
class Ask:
    """Which queries of a request pass in this step: positions in the sequence, the slots of their keys, and how far they are turned
    from their positions."""

    request: str
    positions: tuple[int, ...]
    slots: tuple[int, ...]
    shift: int = 0


@dataclass
class Asked:
    """Queries of a prompt: positions, and by layer [n, q_heads, dims], turned `shift` positions from theirs."""

    positions: list[int]
    layers: list[list[torch.Tensor]]
    shift: int

    def stacked(self) -> torch.Tensor:
        """[layers, q_heads, n, dims] after RoPE, on the CPU."""
        return torch.stack([torch.cat(of) for of in self.layers]).transpose(1, 2).cpu()


def wanted(tokens: int) -> list[int]:
    """The positions of a prompt of so many tokens whose queries are taken."""
    last = list(range(max(tokens - LAST, 0), tokens))
    before = tokens - len(last)
    n = min(SPREAD, before)
    return [(2 * i + 1) * before // (2 * n) for i in range(n)] + last


class Queries:
    """Those of the requests that are under way. Used by the worker's own thread."""

    def __init__(self, layers: list[Any]) -> None:
        """layers are vLLM's Attention layers in the order of their numbers."""
        self._asks: list[Ask] = []
        self._rows: list[torch.Tensor] | None = None
        self._kept: dict[str, Asked] = {}
        self._layers = len(layers)
        for number, layer in enumerate(layers):
            layer.impl.forward = self._watch(number, layer.impl.forward)

    def begin(self, asks: list[Ask]) -> None:
        """What passes in the step that begins."""
        self._asks, self._rows = asks, None

    def of(self, request: str) -> Asked | None:
        """What has passed so far of a request's queries; None: nothing, or not in every layer."""
        found = self._kept.get(request)
        if found is None or any(sum(map(len, of)) != len(found.positions) for of in found.layers):
            return None
        return found

    def drop(self, request: str) -> None:
        """It has ended."""
        self._kept.pop(request, None)

    def _watch(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(layer: Any, query: torch.Tensor, *rest: Any, **more: Any) -> Any:
            if self._asks:
                self._keep(number, layer, query, rest, more)
            return forward(layer, query, *rest, **more)

        return watched

    def _keep(self, number: int, layer: Any, query: torch.Tensor, rest: tuple[Any, ...], more: dict[str, Any]) -> None:
        metadata = more.get("attn_metadata", rest[3] if len(rest) > 3 else None)
        slots = getattr(metadata, "slot_mapping", None)
        if slots is None:  # a step that only warms up
            return
        if self._rows is None:
            self._rows = []
            for ask in self._asks:
                want = torch.tensor(ask.slots, device=slots.device, dtype=slots.dtype)
                at = (slots[None, :] == want[:, None]).int().argmax(1)
                self._rows.append(at)
                kept = self._kept.setdefault(ask.request, Asked([], [[] for _ in range(self._layers)], ask.shift))
                kept.positions.extend(ask.positions)
        heads = query.reshape(query.shape[0], layer.num_heads, -1)
        for ask, rows in zip(self._asks, self._rows, strict=True):
            self._kept[ask.request].layers[number].append(heads.index_select(0, rows))
