"""Attention layers of vLLM over one cache of units, and beside them what each request has written, by layer and head: what comes out is
held against attention that is written out. Of any backend, on any device: vllm itself is set up by whoever imports this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch

from semproxy_kv.vllm.check import Shape
from semproxy_kv.vllm.cores import Ragged
from semproxy_kv.vllm.slots import LayerSlots
from semproxy_kv.vllm.units import Reader, units_of
from semproxy_kv.vllm.worker import WorkerSide
from semproxy_kv.wire import Rope

LAYERS, HEADS, GROUP, DIM, BLOCK, BLOCKS = 3, 2, 3, 64, 32, 60
SCALE = DIM**-0.5
SHAPE = Shape("m", Rope("none", DIM), LAYERS, HEADS, DIM, BLOCK, torch.float32, 1, units=True)
LHBNC, LBHNC, BLHNC, BHLNC = (0, 2, 1), (0, 1, 2), (1, 0, 2), (1, 2, 0)  # the order in memory of layers, blocks and heads, as vLLM names it


@dataclass(frozen=True)
class Kernel:
    """An attention backend: its implementation, its metadata, and what its layers need beside them."""

    impl: Callable[..., Any]  # as vLLM's Attention makes it
    metadata: Callable[..., Any]  # tokens, longest query, starts, longest sequence, lengths, table, slots
    layer: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    close: float = 2e-5
    kept: torch.dtype | None = None  # what it rounds keys and values to, at this scale
    scale: float = 1.0


class Engine:
    def __init__(self, kernel: Kernel, order: Sequence[int] = LBHNC) -> None:
        self.kernel, self.random = kernel, torch.Generator().manual_seed(3)
        shape = replace(SHAPE, dtype=kernel.dtype, kept=kernel.kept)
        sizes = [(LAYERS, BLOCKS, HEADS)[axis] for axis in order]
        room = torch.randn(*sizes, BLOCK, 2 * DIM, generator=self.random).to(kernel.device)  # what others have left
        room = room.to(kernel.kept).view(torch.uint8) if kernel.kept else room.to(kernel.dtype)
        room = room.permute(*(list(order).index(axis) for axis in range(3)), 3, 4)
        self.layers, self.slots = [], []
        for i in range(LAYERS):
            impl = kernel.impl(HEADS * GROUP, DIM, SCALE, HEADS, None, None)
            self.layers.append(SimpleNamespace(impl=impl, **kernel.layer))
            self.slots.append(LayerSlots(self.layers[i], room[i], None, None, kernel.kept))  # type: ignore[arg-type]
        self.reader = Reader(units_of(list(room), shape), shape, self.layers)
        self.worker: Any = SimpleNamespace(shape=shape, layers=self.slots, device=room.device, units=self.reader._units)
        self.free = torch.randperm(BLOCKS - 1, generator=self.random).add(1).tolist()
        self.want: dict[tuple[str, int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self.blocks: dict[str, list[int]] = {}
        self.ends: dict[str, int] = {}
        self.on_cores: set[str] = set()

    def rounded(self, rows: torch.Tensor) -> torch.Tensor:
        """As they are kept."""
        kept, scale = self.kernel.kept, self.kernel.scale
        return rows if kept is None else (rows / scale).to(kept).float() * scale

    def rows(self, n: int) -> torch.Tensor:
        return torch.randn(n, DIM, generator=self.random).to(self.kernel.dtype)

    def cores(self, name: str, lengths: torch.Tensor, skip: int = 0) -> None:
        """A request whose cores are so many by layer and head."""
        keys = [self.rows(int(n.sum())) for n in lengths]
        values = [self.rows(int(n.sum())) for n in lengths]
        need = -(-int(lengths.sum()) // BLOCK // (LAYERS * HEADS))
        self.blocks[name] = [self.free.pop() for _ in range(need)]
        cores = Ragged(tuple(keys), tuple(values), lengths, need * BLOCK)
        WorkerSide._fill(self.worker, cores, torch.tensor(self.blocks[name]), skip)
        self.reader.hold(name, tuple(self.blocks[name]), lengths)
        self.on_cores.add(name)
        for i in range(LAYERS):
            at = 0
            for h, n in enumerate(lengths[i].tolist()):
                self.want[name, i, h] = self.rounded(keys[i][at : at + n]), self.rounded(values[i][at : at + n])
                at += n
        self.ends[name] = need * BLOCK

    def tokens(self, name: str, n: int) -> None:
        """The engine writes tokens behind what there is."""
        blocks, end = self.blocks.setdefault(name, []), self.ends.get(name, 0)
        while len(blocks) * BLOCK < end + n:
            blocks.append(self.free.pop())
        slots = torch.tensor([blocks[p // BLOCK] * BLOCK + p % BLOCK for p in range(end, end + n)])
        for i, layer in enumerate(self.slots):
            k, v = (self.rows(n * HEADS).view(n, HEADS, DIM) for _ in range(2))
            layer.put(k, v, slots)
            for h in range(HEADS):
                before = self.want.get((name, i, h), (torch.empty(0, DIM), torch.empty(0, DIM)))
                self.want[name, i, h] = torch.cat([before[0], self.rounded(k[:, h])]), torch.cat([before[1], self.rounded(v[:, h])])
        self.ends[name] = end + n

    def check(self, asked: dict[str, int]) -> None:
        """The last so many tokens of each request attend, in every layer; what comes out is what it should be."""
        names, on = list(asked), self.kernel.device
        width = max(len(self.blocks[name]) for name in names) + 2
        table = torch.zeros(len(names), width, dtype=torch.int32)
        for i, name in enumerate(names):
            table[i, : len(self.blocks[name])] = torch.tensor(self.blocks[name], dtype=torch.int32)
        starts = torch.tensor([0, *asked.values()], dtype=torch.int32).cumsum(0).to(torch.int32)
        total = int(starts[-1])
        metadata = self.kernel.metadata(
            total, max(asked.values()), starts.to(on), max(self.ends.values()),
            torch.tensor([self.ends[name] for name in names], dtype=torch.int32, device=on), table.to(on),
            torch.zeros(total, dtype=torch.long, device=on),
        )  # fmt: skip
        self.reader.begin({name: self.blocks[name][0] for name in names if name in self.on_cores})
        for i, layer in enumerate(self.layers):
            query = self.rows(total * HEADS * GROUP).view(total, HEADS * GROUP, DIM)
            padded = torch.cat([query, query[:1]]).to(on)  # as a step that is padded to the size of a graph
            out = torch.full_like(padded, float("nan"))
            layer.impl.forward(layer, padded, None, None, self.slots[i].cache, metadata, output=out)
            out = out.cpu()
            for r, name in enumerate(names):
                for h in range(HEADS):
                    k, v = (rows.double() for rows in self.want[name, i, h])
                    q = query[int(starts[r]) : int(starts[r + 1]), h * GROUP : (h + 1) * GROUP].transpose(0, 1).double()
                    mask = torch.ones(asked[name], len(k), dtype=torch.bool).tril(len(k) - asked[name])
                    want = torch.nn.functional.scaled_dot_product_attention(
                        q[None], k.expand(1, GROUP, -1, -1), v.expand(1, GROUP, -1, -1), attn_mask=mask, scale=SCALE
                    )[0]
                    got = out[int(starts[r]) : int(starts[r + 1]), h * GROUP : (h + 1) * GROUP].transpose(0, 1).double()
                    assert torch.allclose(got, want, atol=self.kernel.close), (name, i, h, float((got - want).abs().max()))


def lengths(*of: int) -> torch.Tensor:
    """Units of each layer and head, as slots."""
    return torch.tensor(of).view(LAYERS, HEADS) * BLOCK


def answers(engine: Engine, every: int = 8) -> None:
    """Requests with other numbers of cores by head beside one without, over the end of a block."""
    engine.cores("a", lengths(1, 5, 2, 2, 9, 1))
    engine.cores("b", lengths(3, 0, 1, 1, 1, 2))
    engine.tokens("a", 40)
    engine.tokens("b", 3)
    engine.tokens("c", 70)
    engine.check({"a": 1, "c": 1, "b": 1})
    for n in range(BLOCK + 2):
        for name in "abc":
            engine.tokens(name, 1)
        if n % every == 0 or n > BLOCK - 2:
            engine.check({"a": 1, "c": 1, "b": 1})


def prompts(engine: Engine) -> None:
    """A prompt that is computed behind its cores in pieces."""
    engine.cores("a", lengths(1, 4, 2, 2, 3, 1))
    engine.tokens("c", 20)
    engine.tokens("a", 1)
    engine.check({"a": 1, "c": 20})
    engine.tokens("a", 45)
    engine.tokens("c", 1)
    engine.check({"c": 1, "a": 45})
