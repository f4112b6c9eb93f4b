"""Pages of a cache: which layers and tokens go into one message, and how their cores come together again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import SemproxyError
from ..tensors import Head, heads, to_wire
from ..wire import Cores, Page, Rope, Tensor
from .capture import Queries
from .prefix import Prefix

OVERHEAD = 8192  # bytes of a page besides its large tensors: header, checksums
PER_TOKEN = 16  # token id, position, marks
PER_CORE = 16  # of a reply that merges nothing: count, bias, position, whose core a token is in


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
    placed: bool = True  # queries say their positions
    boundary: torch.Tensor | None = None  # [batch, tokens]
    protect: torch.Tensor | None = None
    importance: torch.Tensor | None = None  # [layers, batch, kv_heads, tokens]

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
    """Split by layers first, then by tokens, so that every page fits max_page bytes, and its reply, were nothing merged."""
    k = s.keys[0]
    window = 0
    if s.queries:
        q = next(iter(s.queries.values()))
        window = q.shape[1] * (q.shape[2] + (s.queries.wanted if isinstance(s.queries, Queries) else 0))
    token = k.shape[1] * (2 * k.shape[3] * k.element_size() + PER_CORE) + PER_TOKEN
    fixed = window * k.shape[3] * k.element_size()
    out = []
    for row in range(k.shape[0]):
        start = s.tokens - int(s.valid[row].sum())
        n = s.tokens - start
        layers = min(layers_per_page or len(s.keys), len(s.keys), max((max_page - OVERHEAD) // (token * n + fixed), 1))
        most = (max_page - OVERHEAD - fixed) // token
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

        q, q_positions = _queries(s, part) if s.queries else (None, None)
        yield Page(
            model=model,
            sequence=sequence if s.ids.shape[0] == 1 else f"{sequence}.{row}",  # the proxy's own name finds its request
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
            q_positions=q_positions,
            boundary=mark(s.boundary),
            protect=mark(s.protect),
            importance=None if s.importance is None else to_wire(s.importance[part.layers, row, :, tokens].float().contiguous()),
        ).encode()


def _queries(s: Snapshot, part: Part) -> tuple[Tensor, Tensor | None]:
    """The queries of a page's layers, and which positions they come from where they are not its last tokens'."""
    assert s.queries
    layers, row, dtype = range(part.layers.start, part.layers.stop), part.row, s.keys[0].dtype
    if missing := [i for i in layers if i not in s.queries]:
        raise SemproxyError("page.missing_tensor", f"the captured queries lack layer {missing[0]}")
    last = [s.queries[i][row] for i in layers]
    window, end = last[0].shape[1], s.first + s.tokens
    if isinstance(s.queries, Queries):
        end = s.queries.end[part.layers.start]
    first = s.first + int((~s.valid[row]).sum())  # padding asks nothing
    if not s.placed or not first <= end - window < end <= s.first + s.tokens:
        return to_wire(torch.stack(last).to(dtype)), None
    at: list[int] = []
    if isinstance(s.queries, Queries):
        early = [dict(s.queries.strided(i, first, end)) for i in layers]
        at = sorted(set.intersection(*(set(one) for one in early)))
        last = [torch.cat([*(one[i][row][:, None] for i in at), its], 1) for one, its in zip(early, last, strict=True)]
    where = s.positions[row][torch.tensor([*at, *range(end - window, end)]) - s.first]
    return to_wire(torch.stack(last).to(dtype)), to_wire(where.to(torch.int32))


def _itself(s: Snapshot, part: Part) -> dict[tuple[int, int], Head]:
    """The tokens of a page that stays as it is, each a core of its own."""
    tokens = part.tokens
    where = s.positions[part.row, tokens].float()
    return {
        (i - part.layers.start, h): Head(
            s.keys[i][part.row, h, tokens].cpu(), s.values[i][part.row, h, tokens].cpu(), torch.zeros(len(where)), where
        )
        for i in range(part.layers.start, part.layers.stop)
        for h in range(s.keys[0].shape[1])
    }


def assemble(s: Snapshot, which: list[Part], replies: list[Cores | None]) -> list[Prefix]:
    """The prefix of every layer, from the cores of all parts; None stands for a part that stays as it is."""
    batch, kv_heads = s.keys[0].shape[:2]
    dtype, device = s.keys[0].dtype, s.keys[0].device
    grid: dict[tuple[int, int, int], list[Head]] = {}
    for part, cores in zip(which, replies, strict=True):
        wanted = (part.layers.stop - part.layers.start, kv_heads)
        if cores is not None and (
            cores.grid() != wanted or cores.tokens != part.tokens.stop - part.tokens.start or cores.layer_first != part.layers.start
        ):
            raise SemproxyError("page.bad_shape", "the cores are not those of the page that was sent")
        for (layer, head), found in (_itself(s, part) if cores is None else heads(cores, dtype)).items():
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
