"""Cores that are as many as each layer and head needs, read by the engine's own attention kernel.

A block table says where the tokens of a request lie in all layers and heads at once, so a head with few cores would take as much room
as one with many. But a kernel that is told that there is one KV head sees more: where a head's part of a block is one run of
memory, the cache of all layers is a row of units, [layers x blocks x kv_heads], each of `block` slots of one head, and a unit may hold any
layer's and any head's cores. Then every layer, head and request is a sequence of its own for the kernel: first the units of its cores,
then those that its layer and head have in the blocks of the tokens behind them, where the engine writes as always.

A request with cores takes as many blocks as all its units fill, whatever each head has. Nothing but block tables and lengths
changes: the kernel is the engine's own, told in the way of its backend (backends.py), and steps without such requests are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import UnsupportedModel
from .backends import Batch, Tell, of_one_head, tell_of
from .check import Shape


@dataclass(frozen=True)
class Units:
    """The KV cache of all layers, [units, 1, block, 2 x dims], as the kernel reads it with one KV head."""

    cache: torch.Tensor
    first: torch.Tensor  # [layers, 1, 1]: the unit of a layer's first block and head
    strides: tuple[int, int]  # units from a block to the next, from a head to the next
    kv_heads: int

    def of(self, blocks: torch.Tensor) -> torch.Tensor:
        """The units of these blocks, [len(blocks), layers, kv_heads]."""
        heads = torch.arange(self.kv_heads, device=blocks.device)
        return (blocks[:, None, None] * self.strides[0] + self.first[None, :, 0] + heads * self.strides[1]).to(torch.int32)


def units_of(caches: list[torch.Tensor], shape: Shape) -> Units:
    """The units of the layers' caches, [blocks, kv_heads, block, 2 x dims] each. Raises UnsupportedModel."""
    size = shape.block * 2 * shape.head_dim
    store = caches[0].untyped_storage()
    cells = store.nbytes() // caches[0].element_size()
    for cache in caches:
        blocks, heads = cache.shape[:2]
        offset, strides = cache.storage_offset(), cache.stride()
        fits = [blocks, heads] == [caches[0].shape[0], shape.kv_heads] and cache[0, 0].is_contiguous() and cache[0, 0].numel() == size
        aligned = not (offset % size or strides[0] % size or strides[1] % size)
        if cache.untyped_storage().data_ptr() != store.data_ptr() or not fits or not aligned or strides[:2] != caches[0].stride()[:2]:
            raise UnsupportedModel(
                f"the KV caches of shape {list(cache.shape)} do not lie in one row of blocks of one head's {shape.block} slots:"
                " VLLM_KV_CACHE_LAYOUT=HND, and a --block-size that the attention backend does not divide"
            )
    whole = caches[0].as_strided((cells // size, 1, *caches[0].shape[2:]), (size, size, *caches[0].stride()[2:]), 0)
    first = torch.tensor([c.storage_offset() // size for c in caches], device=whole.device)
    return Units(whole, first[:, None, None], (caches[0].stride(0) // size, caches[0].stride(1) // size), shape.kv_heads)


@dataclass(frozen=True)
class Held:
    """Cores of a request, as they lie in its first blocks."""

    units: torch.Tensor  # I32 [units]: all of these blocks
    lengths: torch.Tensor  # I64 [layers, kv_heads]: slots, whole units of them
    slots: int  # of the request's blocks that hold them

    @staticmethod
    def of(units: Units, blocks: tuple[int, ...], lengths: torch.Tensor, block: int) -> Held:
        return Held(units.of(torch.tensor(blocks, device=units.cache.device)).flatten(), lengths, len(blocks) * block)

    def starts(self, block: int) -> torch.Tensor:
        """[layers, kv_heads]: which of the units is the first of each layer's and head's cores: one after the other."""
        n = self.lengths.flatten() // block
        return (n.cumsum(0) - n).view(self.lengths.shape)


@dataclass
class Step:
    """What the kernel is told in one step of the engine, by layer."""

    seen: Any  # the engine's own metadata
    tokens: int  # whose queries there are
    tables: torch.Tensor  # I32 [layers, kv_heads x requests, units]
    lengths: torch.Tensor  # I32 [layers, kv_heads x requests]
    longest: list[int]  # of these, by layer
    starts: torch.Tensor  # I32 [kv_heads x requests + 1]: of queries


class Reader:
    """Attends over the cores of the requests that have them. Used by the worker's own thread."""

    def __init__(self, units: Units, shape: Shape, layers: list[Any]) -> None:
        """layers are vLLM's Attention layers in the order of their numbers."""
        tells = [tell_of(layer.impl) for layer in layers]
        self._units, self._shape = units, shape
        self._held: dict[str, Held | None] = {}  # None: cores as many in every layer and head, which lie as tokens do
        self._now: dict[int, Held] = {}  # by the first block of a request
        self._step: Step | None = None
        self._known: tuple[Any, ...] = ()  # what the tables were made of
        for number, (layer, tell) in enumerate(zip(layers, tells, strict=True)):
            layer.impl.forward = self._watch(number, tell, of_one_head(layer.impl).forward, layer.impl.forward)

    def hold(self, request: str, blocks: tuple[int, ...], lengths: torch.Tensor | None) -> None:
        """The request's cores lie in these blocks from this step on. lengths is None where they are even: they are read as tokens."""
        on = self._units.cache.device
        self._held[request] = None if lengths is None else Held.of(self._units, blocks, lengths.to(on), self._shape.block)

    def drop(self, request: str) -> None:
        """It has ended, or its blocks are another's."""
        self._held.pop(request, None)

    def begin(self, reads: dict[str, int]) -> None:
        """The requests on cores of the step that begins, and the first block of each. Raises RuntimeError for one of which `hold` said
        nothing: read as tokens, its cores would give a wrong answer."""
        if unknown := reads.keys() - self._held.keys():
            raise RuntimeError(f"requests {sorted(unknown)} read cores, and the worker does not know where: this is a bug of semproxy")
        self._now = {block: held for request, block in reads.items() if (held := self._held[request]) is not None}
        self._step = None

    def _watch(self, number: int, tell: Tell, by_head: Callable[..., Any], forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(
            layer: Any,
            query: torch.Tensor,
            key: Any,
            value: Any,
            cache: torch.Tensor,
            metadata: Any,
            output: torch.Tensor,
            *rest: Any,
            **more: Any,
        ) -> Any:
            step = self._step_of(metadata) if self._now and metadata is not None else None
            if step is None:
                return forward(layer, query, key, value, cache, metadata, output, *rest, **more)
            tokens, heads = step.tokens, self._shape.kv_heads
            asked = query[:tokens].view(tokens, heads, -1, query.shape[-1])
            rows = asked.transpose(0, 1).reshape(heads * tokens, asked.shape[2], -1)
            out = torch.empty_like(rows, dtype=output.dtype)
            batch = Batch(len(rows), step.starts, step.tables[number], step.lengths[number], step.longest[number])
            by_head(layer, rows, key, value, self._units.cache, tell(layer, metadata, batch, query.dtype), out, *rest, **more)
            output[:tokens].view(asked.shape).copy_(out.view(heads, tokens, *asked.shape[2:]).transpose(0, 1))
            return output

        return watched

    def _step_of(self, metadata: Any) -> Step | None:
        """Once a step; None: no request of it is on such cores."""
        if self._step is not None and self._step.seen is metadata:
            return self._step
        n, block, heads = len(metadata.seq_lens), self._shape.block, self._shape.kv_heads
        table, ends = metadata.block_table[:n], metadata.seq_lens.long()
        held = [self._now.get(first) for first in table[:, 0].tolist()]
        if not any(held):
            return None
        used = [-(-end // block) for end in ends.tolist()]
        if not self._same(held, used, table):
            self._known = held, used, table[:, : max(used)].clone(), self._tables(held, used, table)
        none = torch.zeros(self._units.first.shape[0], heads, dtype=torch.long, device=ends.device)
        cores = torch.stack([none if h is None else h.lengths for h in held], -1)
        behind = ends - torch.tensor([h.slots if h else 0 for h in held], device=ends.device)
        lengths = (cores + behind).flatten(1).to(torch.int32)
        starts = metadata.query_start_loc[: n + 1]
        tokens = int(starts[-1])
        by_head = torch.cat([*(starts[:-1] + h * tokens for h in range(heads)), starts.new_tensor([heads * tokens])])
        self._step = Step(metadata, tokens, self._known[3], lengths, lengths.amax(1).tolist(), by_head)
        return self._step

    def _same(self, held: list[Held | None], used: list[int], table: torch.Tensor) -> bool:
        """Whether the tables of the step before are those of this one."""
        if not self._known:
            return False
        before, count, blocks, _ = self._known
        return (
            len(before) == len(held)
            and all(a is b for a, b in zip(before, held, strict=True))
            and count == used
            and torch.equal(blocks, table[:, : max(used)])
        )

    def _tables(self, held: list[Held | None], used: list[int], table: torch.Tensor) -> torch.Tensor:
        """I32 [layers, kv_heads x requests, units]"""
        rows = [self._row(h, table[i, :n].long()) for i, (h, n) in enumerate(zip(held, used, strict=True))]
        width = max(row.shape[-1] for row in rows)
        return torch.stack([torch.nn.functional.pad(row, (0, width - row.shape[-1])) for row in rows], 2).flatten(1, 2)

    def _row(self, held: Held | None, blocks: torch.Tensor) -> torch.Tensor:
        """I32 [layers, kv_heads, units]: those of a request, its cores first."""
        block = self._shape.block
        if held is None:
            return self._units.of(blocks).permute(1, 2, 0).contiguous()
        behind = self._units.of(blocks[held.slots // block :]).permute(1, 2, 0)  # [layers, kv_heads, blocks]
        n, first = held.lengths // block, held.starts(block)
        at = torch.arange(int(n.max()) + behind.shape[-1], device=n.device).expand(*n.shape, -1)
        cores = held.units[(first[..., None] + at).clamp(max=len(held.units) - 1)]
        if not behind.shape[-1]:
            return cores
        tail = behind.gather(2, (at - n[..., None]).clamp(0, behind.shape[-1] - 1))
        return torch.where(at < n[..., None], cores, tail)
