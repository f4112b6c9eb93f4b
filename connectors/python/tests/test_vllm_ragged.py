"""Cores in other numbers by layer and head, read by vLLM's own kernel for CPUs, against attention that is written out."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import missing

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm.config import set_current_vllm_config
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl, CPUAttentionMetadata, _get_attn_isa
from vllm_harness import KERNELS, engine_config

from semproxy_kv import UnsupportedModel
from semproxy_kv.vllm.check import QUANTISED, Shape
from semproxy_kv.vllm.cores import Ragged
from semproxy_kv.vllm.slots import LayerSlots
from semproxy_kv.vllm.units import Reader, units_of
from semproxy_kv.vllm.worker import WorkerSide
from semproxy_kv.wire import Rope

if not KERNELS:
    missing("model", "this package of vLLM has no kernels for CPUs")

LAYERS, HEADS, GROUP, DIM, BLOCK, BLOCKS = 3, 2, 3, 64, 32, 60
SCALE = DIM**-0.5
SHAPE = Shape("m", Rope("none", DIM), LAYERS, HEADS, DIM, BLOCK, torch.float32, 1, units=True)


class Engine:
    """Attention layers of vLLM over one cache, and what each request has written, by layer and head."""

    def __init__(self, kept: str = "auto") -> None:
        self.random, self.kept = torch.Generator().manual_seed(3), QUANTISED.get(kept)
        room = torch.randn(LAYERS, BLOCKS, HEADS, BLOCK, 2 * DIM, generator=self.random)  # what others have left
        if self.kept:
            room = room.to(self.kept).view(torch.uint8)
        isa = _get_attn_isa(torch.float32, BLOCK, DIM, kept)
        self.layers, self.slots = [], []
        with set_current_vllm_config(engine_config("nats://127.0.0.1:9")):
            for i in range(LAYERS):
                impl = CPUAttentionBackendImpl(HEADS * GROUP, DIM, SCALE, HEADS, None, None, kept)
                self.layers.append(SimpleNamespace(impl=impl, isa=isa, _k_scale_float=self.scale, _v_scale_float=self.scale))
                self.slots.append(LayerSlots(self.layers[i], room[i], None, None, self.kept))  # type: ignore[arg-type]
        self.reader = Reader(units_of(list(room), SHAPE), SHAPE, self.layers)
        self.worker: Any = SimpleNamespace(shape=SHAPE, layers=self.slots, device=room.device, units=self.reader._units)
        self.free = torch.randperm(BLOCKS - 1, generator=self.random).add(1).tolist()
        self.want: dict[tuple[str, int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self.blocks: dict[str, list[int]] = {}
        self.ends: dict[str, int] = {}
        self.on_cores: set[str] = set()

    @property
    def scale(self) -> float:
        return 0.25 if self.kept else 1.0

    def rounded(self, rows: torch.Tensor) -> torch.Tensor:
        """As they are kept."""
        return rows if self.kept is None else (rows / self.scale).to(self.kept).float() * self.scale

    def rows(self, n: int) -> torch.Tensor:
        return torch.randn(n, DIM, generator=self.random)

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
        names = list(asked)
        width = max(len(self.blocks[name]) for name in names) + 2
        table = torch.zeros(len(names), width, dtype=torch.int32)
        for i, name in enumerate(names):
            table[i, : len(self.blocks[name])] = torch.tensor(self.blocks[name], dtype=torch.int32)
        starts = torch.tensor([0, *asked.values()], dtype=torch.int32).cumsum(0).to(torch.int32)
        total = int(starts[-1])
        metadata = CPUAttentionMetadata(
            total, max(asked.values()), starts, max(self.ends.values()),
            torch.tensor([self.ends[name] for name in names], dtype=torch.int32), table, torch.zeros(total, dtype=torch.long), None,
        )  # fmt: skip
        self.reader.begin({name: self.blocks[name][0] for name in names if name in self.on_cores})
        for i, layer in enumerate(self.layers):
            query = self.rows(total * HEADS * GROUP).view(total, HEADS * GROUP, DIM)
            out = torch.full_like(query, float("nan"))
            layer.impl.forward(layer, query, None, None, self.slots[i].cache, metadata, out)
            for r, name in enumerate(names):
                for h in range(HEADS):
                    k, v = self.want[name, i, h]
                    q = query[int(starts[r]) : int(starts[r + 1]), h * GROUP : (h + 1) * GROUP].transpose(0, 1)
                    mask = torch.ones(asked[name], len(k), dtype=torch.bool).tril(len(k) - asked[name])
                    want = torch.nn.functional.scaled_dot_product_attention(
                        q[None], k.expand(1, GROUP, -1, -1), v.expand(1, GROUP, -1, -1), attn_mask=mask, scale=SCALE
                    )[0]
                    got = out[int(starts[r]) : int(starts[r + 1]), h * GROUP : (h + 1) * GROUP].transpose(0, 1)
                    assert torch.allclose(got, want, atol=2e-3 if self.kept else 2e-5), (name, i, h, float((got - want).abs().max()))


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture(params=["auto", "fp8_e4m3", "fp8_e5m2"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    return Engine(request.param)


def lengths(*of: int) -> torch.Tensor:
    return torch.tensor(of).view(LAYERS, HEADS) * BLOCK


def test_heads_with_other_numbers_of_cores_beside_a_request_without(any_engine: Engine) -> None:
    engine = any_engine
    engine.cores("a", lengths(1, 5, 2, 2, 9, 1))
    engine.cores("b", lengths(3, 0, 1, 1, 1, 2))
    engine.tokens("a", 40)
    engine.tokens("b", 3)
    engine.tokens("c", 70)
    engine.check({"a": 1, "c": 1, "b": 1})
    for n in range(BLOCK + 2):  # over the end of a block
        for name in "abc":
            engine.tokens(name, 1)
        if n % 8 == 0 or n > BLOCK - 2:
            engine.check({"a": 1, "c": 1, "b": 1})


def test_a_prompt_that_is_computed_behind_its_cores_in_pieces(any_engine: Engine) -> None:
    engine = any_engine
    engine.cores("a", lengths(1, 4, 2, 2, 3, 1))
    engine.tokens("c", 20)
    engine.tokens("a", 1)
    engine.check({"a": 1, "c": 20})
    engine.tokens("a", 45)
    engine.tokens("c", 1)
    engine.check({"c": 1, "a": 45})


def test_blocks_that_become_anothers(engine: Engine) -> None:
    """The same first block, and all else different."""
    engine.cores("a", lengths(2, 2, 2, 2, 3, 1))
    engine.tokens("a", 5)
    engine.check({"a": 1})
    engine.free += engine.blocks["a"][1:]
    engine.free.append(engine.blocks["a"][0])
    engine.reader.drop("a")
    engine.cores("b", lengths(1, 3, 1, 3, 1, 3))
    engine.tokens("b", 5)
    assert engine.blocks["b"][0] == engine.blocks["a"][0]
    engine.check({"b": 1})
    engine.tokens("b", 30)
    engine.check({"b": 7})


def test_another_request_in_the_row_of_one_that_has_ended(engine: Engine) -> None:
    """As many blocks, and others: what was made for the batch before does not fit, though the request on cores is the same."""
    engine.cores("a", lengths(2, 1, 2, 3, 3, 1))
    for name in "acd":
        engine.tokens(name, 20)
    engine.check({"a": 1, "c": 1})
    engine.check({"a": 1, "d": 1})


def test_cores_of_which_the_worker_was_told_nothing_are_refused(engine: Engine) -> None:
    engine.cores("a", lengths(2, 1, 2, 3, 3, 1))
    engine.reader.hold("even", tuple(engine.blocks["a"]), None)
    engine.reader.begin({"a": engine.blocks["a"][0], "even": 5})
    assert list(engine.reader._now) == [engine.blocks["a"][0]]
    engine.reader.drop("a")
    with pytest.raises(RuntimeError, match=r"\['a'\] read cores"):
        engine.reader.begin({"a": engine.blocks["a"][0], "even": 5})


def test_caches_that_are_no_rows_of_units_are_refused() -> None:
    room = torch.zeros(LAYERS, BLOCKS, HEADS, BLOCK, 2 * DIM)
    for what, caches in {
        "apart": [torch.zeros_like(layer) for layer in room],
        "slots before heads": list(torch.zeros(LAYERS, BLOCKS, BLOCK, HEADS, 2 * DIM).transpose(2, 3)),
    }.items():
        with pytest.raises(UnsupportedModel, match="row of blocks"):
            units_of(caches, SHAPE)
        assert what
    blocks_first = units_of(list(torch.zeros(BLOCKS, LAYERS, HEADS, BLOCK, 2 * DIM).transpose(0, 1)), SHAPE)
    assert blocks_first.of(torch.tensor([2])).flatten().tolist() == list(range(2 * LAYERS * HEADS, 3 * LAYERS * HEADS))
    with pytest.raises(UnsupportedModel, match="sinks"):
        Reader(units_of(list(room), SHAPE), SHAPE, [SimpleNamespace(impl=SimpleNamespace(sinks=room, alibi_slopes=None))])
    assert replace(SHAPE, units=False) != SHAPE
