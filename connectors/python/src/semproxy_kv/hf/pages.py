"""Pages of a cache: which layers and tokens go into one message, and how their cores come together again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import SemproxyError
from ..tensors import Head, heads, to_wire
from ..wire import Cores, Page, Rope
from .layer import Prefix

OVERHEAD = 4096  # bytes of a page besides its large tensors: header, checksums
PER_TOKEN = 16  # token id, position, marks


@dataclass
class Snapshot:
    """What is to be compressed: of each layer the keys and values after its cores, [batch, kv_heads, tokens, head_dim].

    ids and positions are [batch, tokens]; valid tells the tokens that are no padding, which stands on the left only.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    ids: torch.Tensor
    positions: torch.Tensor
    valid: torch.Tensor
    first: int  # tokens before these, already cores
    queries: dict[int, torch.Tensor] | None = None
    boundary: torch.Tensor | None = None  # [batch, tokens]
    protect: torch.Tensor | None = None

    @property
    def tokens(self) -> int:
        return self.ids.shape[1]


@dataclass(frozen=True)
class Part:
    """One page's share: a sequence of the batch, layers and tokens (of the snapshot)."""

    row: int
    layers: slice
    tokens: slice


def parts(s: Snapshot, max_page: int, layers_per_page: int | None) -> list[Part]:
    """Split by layers first, then by tokens, so that every page fits max_page bytes."""
    k = s.keys[0]
    window = 0
    if s.queries:
        q = next(iter(s.queries.values()))
        window = q.shape[1] * q.shape[2]
    token = 2 * k.shape[1] * k.shape[3] * k.element_size() + PER_TOKEN
    fixed = OVERHEAD + window * k.shape[3] * k.element_size()
    out = []
    for row in range(k.shape[0]):
        start = s.tokens - int(s.valid[row].sum())
        n = s.tokens - start
        layers = min(layers_per_page or len(s.keys), len(s.keys), max((max_page - OVERHEAD) // (token * n + fixed), 1))
        most = (max_page - fixed) // token
        if most < 1:
            raise SemproxyError("page.too_large", f"one token of one layer does not fit a page of {max_page} bytes")
        ranges = math.ceil(n / most) if layers == 1 else 1
        step = math.ceil(n / ranges)
        out += [
            Part(row, slice(layer, min(layer + layers, len(s.keys))), slice(at, min(at + step, s.tokens)))
            for layer in range(0, len(s.keys), layers)
            for at in range(start, s.tokens, step)
        ]
    return out


def encode(s: Snapshot, which: list[Part], model: str, layout: str, rope: Rope, sequence: str) -> Iterator[bytes]:
    """The blob of each part."""
    for number, part in enumerate(which):
        layers = range(part.layers.start, part.layers.stop)
        row, tokens = part.row, part.tokens
        padding = s.tokens - int(s.valid[row].sum())

        def mark(t: torch.Tensor | None, row: int = row, tokens: slice = tokens) -> Any:
            return None if t is None else to_wire((t[row, tokens] != 0).to(torch.uint8))

        q = None
        if s.queries:
            missing = [i for i in layers if i not in s.queries]
            if missing:
                raise SemproxyError("page.missing_tensor", f"the captured queries lack layer {missing[0]}")
            q = to_wire(torch.stack([s.queries[i][row] for i in layers]).to(s.keys[0].dtype))
        yield Page(
            model=model,
            sequence=f"{sequence}.{row}",
            layout=layout,
            layer_first=part.layers.start,
            token_first=s.first + tokens.start - padding,
            tokens_total=s.first + s.tokens - padding,
            page=number,
            pages=len(which),
            rope=rope,
            k=to_wire(torch.stack([s.keys[i][row, :, tokens] for i in layers])),
            v=to_wire(torch.stack([s.values[i][row, :, tokens] for i in layers])),
            token_ids=to_wire(s.ids[row, tokens].to(torch.int32)),
            positions=to_wire(s.positions[row, tokens].to(torch.int32)),
            q=q,
            boundary=mark(s.boundary),
            protect=mark(s.protect),
        ).encode()


def assemble(s: Snapshot, which: list[Part], replies: list[Cores]) -> list[Prefix]:
    """The prefix of every layer, from the cores of all parts."""
    batch, kv_heads = s.keys[0].shape[:2]
    dtype, device = s.keys[0].dtype, s.keys[0].device
    grid: dict[tuple[int, int, int], list[Head]] = {}
    for part, cores in zip(which, replies, strict=True):
        wanted = (part.layers.stop - part.layers.start, kv_heads)
        if cores.grid() != wanted or cores.tokens != part.tokens.stop - part.tokens.start or cores.layer_first != part.layers.start:
            raise SemproxyError("page.bad_shape", "the cores are not those of the page that was sent")
        for (layer, head), found in heads(cores, dtype).items():
            grid.setdefault((part.layers.start + layer, part.row, head), []).append(found)
    return [
        _prefix([[grid[layer, row, head] for head in range(kv_heads)] for row in range(batch)], s.tokens, device)
        for layer in range(len(s.keys))
    ]


def _prefix(cells: list[list[list[Head]]], tokens: int, device: torch.device) -> Prefix:
    """Lay out the cores of one layer: cells[row][head] are the ones of its parts in order."""
    flat = [part for row in cells for head in row for part in head]
    lengths = [[sum(len(part.bias) for part in head) for head in row] for row in cells]
    width = max(max(row) for row in lengths)
    shape = len(cells), len(cells[0]), width
    rows = torch.zeros(shape, dtype=torch.int32)
    bias = torch.full(shape, float("-inf"))
    positions = torch.zeros(shape)
    at = 0
    for i, row in enumerate(cells):
        for h, head in enumerate(row):
            n = lengths[i][h]
            rows[i, h, width - n :] = torch.arange(at, at + n, dtype=torch.int32)
            bias[i, h, width - n :] = torch.cat([part.bias for part in head])
            positions[i, h, width - n :] = torch.cat([part.positions for part in head])
            at += n
    keys, values = torch.cat([part.keys for part in flat]), torch.cat([part.values for part in flat])
    return Prefix(keys.to(device), values.to(device), rows.to(device), bias.to(device), positions.to(device), tokens)
