"""Cores as an engine's slots take them.

Where every layer and head has as many, one block table holds them as it holds tokens. Where they differ, an engine that has units
(units.py) takes them as they are, in whole blocks of a head; for all others a head with few repeats some.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import SemproxyError
from ..tensors import Head, heads, rotate
from ..wire import Cores
from .check import Shape

UNEVEN = 0.1  # of its slots that may repeat cores in a head which has fewer


@dataclass(frozen=True)
class Slots:
    """Keys and values, [layers, slots, kv_heads, dims], and the bias of each, [layers, slots, kv_heads], or None: folded into the keys."""

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor | None

    @property
    def slots(self) -> int:
        return self.keys.shape[1]

    @property
    def bytes(self) -> int:
        return 2 * self.keys.nbytes


@dataclass(frozen=True)
class Ragged:
    """Keys and values by layer, [slots of all heads, dims], one head behind the other, each in whole blocks."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    lengths: torch.Tensor  # I64 [layers, kv_heads]
    slots: int  # of the request: those of the blocks that hold all of it

    @property
    def bytes(self) -> int:
        return 2 * sum(k.nbytes for k in self.keys)


def lengths(page: Cores, shape: Shape) -> torch.Tensor:
    """How many cores each layer and head of the page has. Raises SemproxyError for a page that is not this engine's."""
    found = page.lengths()
    if found.shape[1] != shape.kv_heads or page.head_dim != shape.head_dim or page.layer_first + found.shape[0] > shape.layers:
        raise SemproxyError("page.bad_shape", "the stored cores are not those of this engine's layers and heads")
    return torch.as_tensor(found, dtype=torch.long)


def width(pages: Sequence[Cores], shape: Shape) -> int:
    """The slots that pages take."""
    ragged = ragged_lengths(pages, shape)
    return sum(_longest(pages, shape).values()) if ragged is None else _slots(ragged, shape)


def ragged_lengths(pages: Sequence[Cores], shape: Shape) -> torch.Tensor | None:
    """The slots of each layer and head, [layers, kv_heads], whole blocks; None: they are not held in units."""
    if not shape.units:
        return None
    total = torch.zeros(shape.layers, shape.kv_heads, dtype=torch.long)
    even = True
    longest = _longest(pages, shape)
    for page in pages:
        n = lengths(page, shape)
        total[page.layer_first :][: len(n)] += n
        even = even and bool((n == longest[page.token_first]).all())
    return None if even else -(-total // shape.block) * shape.block


def _longest(pages: Sequence[Cores], shape: Shape) -> dict[int, int]:
    """Of each range of tokens, the cores of its longest head."""
    longest: dict[int, int] = {}
    for page in pages:
        longest[page.token_first] = max(longest.get(page.token_first, 0), int(lengths(page, shape).max()))
    return longest


def _slots(ragged: torch.Tensor, shape: Shape) -> int:
    units = int(ragged.sum()) // shape.block
    return -(-units // (shape.layers * shape.kv_heads)) * shape.block


def lay(pages: Sequence[Cores], shape: Shape, shift: int, bias: bool) -> Slots | Ragged:
    """The cores of pages that hold every layer, one range of tokens behind the other, rotated by shift positions.

    bias: the engine's attention adds one, so that padding can be masked. Where it does not, the keys must carry it, and a head
    that has fewer cores than it needs repeats some of those that stand for one token. Raises SemproxyError where that does not do.
    """
    ranges: dict[int, list[Cores]] = {}
    for page in pages:
        ranges.setdefault(page.token_first, []).append(page)
    ragged = ragged_lengths(pages, shape)
    if ragged is not None:
        return _ragged([ranges[first] for first in sorted(ranges)], shape, shift, ragged)
    parts = [_range(ranges[first], shape, bias) for first in sorted(ranges)]
    keys, values = (torch.cat([getattr(p, name) for p in parts], 1) for name in ("keys", "values"))
    return Slots(rotate(keys, shape.rope, shift), values, torch.cat([p.bias for p in parts if p.bias is not None], 1) if bias else None)


def _ragged(ranges: list[list[Cores]], shape: Shape, shift: int, n: torch.Tensor) -> Ragged:
    parts: dict[tuple[int, int], list[Head]] = {}
    for pages in ranges:
        for at, found in _heads(pages, shape, False).items():
            parts.setdefault(at, []).append(found)
    keys, values = [], []
    for layer in range(shape.layers):
        of = [_level(_joined(parts[layer, h]), int(n[layer, h])) for h in range(shape.kv_heads)]
        keys.append(rotate(torch.cat([head.keys for head in of]), shape.rope, shift))
        values.append(torch.cat([head.values for head in of]))
    return Ragged(tuple(keys), tuple(values), n, _slots(n, shape))


def _joined(parts: list[Head]) -> Head:
    return Head(*(torch.cat([getattr(p, name) for p in parts]) for name in ("keys", "values", "bias", "positions")))


def _range(pages: Sequence[Cores], shape: Shape, bias: bool) -> Slots:
    n = max(_longest(pages, shape).values())
    keys = torch.zeros(shape.layers, n, shape.kv_heads, shape.head_dim, dtype=shape.dtype)
    values = torch.zeros_like(keys)
    weights = torch.full((shape.layers, n, shape.kv_heads), float("-inf"))
    for (layer, head), found in _heads(pages, shape, bias).items():
        if not bias:
            found = _level(found, n)
        m = len(found.bias)
        keys[layer, :m, head], values[layer, :m, head], weights[layer, :m, head] = found.keys, found.values, found.bias
    return Slots(keys, values, weights)


def _heads(pages: Sequence[Cores], shape: Shape, bias: bool) -> dict[tuple[int, int], Head]:
    """The cores of one range of tokens, by layer and head of the model."""
    out: dict[tuple[int, int], Head] = {}
    for page in pages:
        if bias and page.folded:
            raise SemproxyError("engine.bias", "the keys of the cores carry their bias, and this attention backend would add it again")
        for (number, head), found in heads(page, shape.dtype).items():
            if not bias and not page.folded and bool((found.bias != 0).any()):
                raise SemproxyError("engine.bias", "the cores come with a bias that this attention backend does not add")
            out[page.layer_first + number, head] = found
    if len(out) != shape.layers * shape.kv_heads:
        raise SemproxyError("page.bad_shape", "the cores are not of every layer and head")
    return out


def _level(found: Head, n: int) -> Head:
    missing = n - len(found.bias)
    if not missing:
        return found
    if missing > UNEVEN * n:
        raise SemproxyError(
            "engine.uneven",
            f"a head has {len(found.bias)} cores where {n} slots must be filled, and this attention backend masks none:"
            ' set `budget: equal` in the policy, or "adaptive": true in kv_connector_extra_config',
        )
    again = found.keys.norm(dim=-1).argsort()[:missing]  # the keys that pull the least
    rows = torch.cat([torch.arange(len(found.bias)), again])
    return Head(found.keys[rows], found.values[rows], found.bias[rows], found.positions[rows])
