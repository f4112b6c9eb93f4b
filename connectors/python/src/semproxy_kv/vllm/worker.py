"""The worker's side: copies blocks out and sends them, and writes cores into slots. What takes long runs in threads; what fails
is counted and reported, and stops no step."""

from __future__ import annotations

import re
import threading
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ..client import Result
from ..errors import SemproxyError, UnsupportedModel
from ..tensors import rotate, to_wire
from ..wire import Cores, Page, Tensor
from . import faults, stats
from .check import Shape
from .cores import Ragged, Slots, lay, width
from .importance import Attentive
from .layout import measure
from .metadata import Enter, Hold, Load, Save, StepMeta, WorkerMeta
from .prefix import links, rank_salt
from .queries import Asked, Queries
from .settings import BLOCK, Settings
from .slots import LayerSlots, scales_of
from .store import GONE, Store, store_of, traceparent
from .streams import Fence, Stream
from .threads import pool
from .units import Reader, Units, units_of

OVERHEAD = 8192  # bytes of a page besides its large tensors
PER_TOKEN = 16

Views = tuple[torch.Tensor, torch.Tensor]


class WorkerSide:
    def __init__(self, settings: Settings, shape: Shape, layout: str, rank: int) -> None:
        self.settings, self.shape, self.layout, self.rank = settings, shape, layout, rank
        self.store: Store = store_of(settings)
        self.layers: list[LayerSlots] = []
        self.queries: Queries | None = None
        self.attentive: Attentive | None = None
        self.units: Units | None = None
        self.reader: Reader | None = None
        self.saved = self.loaded = self.entered = 0  # pages; requests; requests
        self._loads = pool(2, "semproxy load")
        self._copies = pool(2, "semproxy copy")
        self._sends = pool(2, "semproxy send")
        self._lock = threading.Lock()
        self._sent: set[str] = set()
        self._received: set[str] = set()
        self._failed: set[str] = set()
        self._pinned: dict[str, list[Cores]] = {}  # of requests that run, so that they find them again after a preemption
        self._loading: dict[str, bool] = {}  # requests, and whether they have ended meanwhile
        self._needed: dict[str, torch.Tensor | None] = {}  # of texts that were read again and are sent in this step
        self._copying: dict[str, Future[None]] = {}  # of requests that run: done when their blocks have been copied
        self._next: dict[str, Slots | Ragged] = {}  # cores of requests that run and may change over
        self._ready: dict[str, Slots | Ragged] = {}  # and of those that have
        self._pages: dict[str, list[Cores]] = {}  # the same cores as they came, where there may be more of them
        self._tails: dict[str, list[Views]] = {}  # tokens of requests that are changing over
        self._delivering: set[str] = set()  # requests that run and whose cores are on the way
        self._ended: set[str] = set()  # those of them that have ended meanwhile
        self._news = WorkerMeta()
        self._on_the_way = 0  # bytes of KV that were copied out and not answered
        self._streams = threading.local()

    def register(self, kv_caches: dict[str, torch.Tensor], blocks: int, attention: dict[str, Any]) -> None:
        """Take the engine's tensors, and its Attention layers by name. Raises UnsupportedModel."""
        if len(kv_caches) != self.shape.layers:
            raise UnsupportedModel(f"the engine has {len(kv_caches)} KV caches, its configuration {self.shape.layers} layers")
        self.layers = []
        for name in sorted(kv_caches, key=_number):
            cache, layer = kv_caches[name], attention[name]

            def write(keys: torch.Tensor, values: torch.Tensor, to: torch.Tensor, slots: torch.Tensor, layer: Any = layer) -> None:
                layer.impl.do_kv_cache_update(layer, keys, values, to, slots)

            layout = measure(cache, self.shape, blocks, write, scales_of(layer))
            attach = getattr(layer.impl, "attach", None)
            bias = None if self.shape.folded or attach is None else attach(blocks * self.shape.block, cache.device)
            self.layers.append(LayerSlots(layer, cache, layout, bias, self.shape.kept))
        layers = [layer.attention for layer in self.layers]
        if self.shape.units:
            self.units = units_of([layer.cache for layer in self.layers], self.shape)
            self.reader = Reader(self.units, self.shape, layers)
        self.queries = Queries(layers)
        if self.settings.importance:
            self.attentive = Attentive(self.layers, self.shape.kv_heads, self.shape.block)

    @property
    def device(self) -> torch.device:
        return self.layers[0].cache.device

    def before_step(self, meta: StepMeta) -> None:
        """Before any block is given to another: copies of preempted requests come to their end, tokens that move are kept."""
        for request in meta.preempted:
            copying = self._copying.get(request)
            if copying is None:
                continue
            if not copying.cancel():
                wait([copying])
                continue
            with self._lock:
                self._delivering.discard(request)
                self._news.failed[request] = "preempted"
        for leave in meta.leaves:
            self._tails[leave.request] = self._gather(leave.blocks, leave.first, leave.last, Fence(self.device))
            with self._lock:
                self._ready[leave.request] = self._next.pop(leave.request)
        if self.queries:
            self.queries.begin(meta.asks)
        if self.attentive:
            self._needed = {save.request: self.attentive.of(*save.read) for save in meta.saves if save.read}
            self.attentive.begin(meta.repeats)
        if self.reader:
            for hold in meta.holds:
                self._hold(hold)
            self.reader.begin(meta.reads)

    def start_loads(self, meta: StepMeta) -> None:
        for enter in meta.enters:
            self._enter(enter)
        for load in meta.loads:
            with self._lock:
                self._loading[load.request] = False
            self._loads.submit(self._load, load, Fence(self.device))

    def start_saves(self, saves: list[Save]) -> None:
        for save in saves:
            asked = self.queries.of(save.request) if self.queries and save.pages else None
            needed = self._needed.pop(save.request, None)
            if save.read and needed is None:
                save = replace(save, pages=())  # it was not seen whole: what is stored of it stays
            with self._lock:
                before = self._copying.get(save.request)
                if save.live:
                    self._delivering.add(save.request)
            copying = self._copies.submit(self._copy, save, asked, needed, Fence(self.device), before)
            if save.number:
                copying.add_done_callback(partial(self._cancelled, save.number))
            if save.live:
                self._copying[save.request] = copying

    def results(self, finished: set[str]) -> tuple[set[str], set[str], set[str]]:
        """Requests whose blocks were copied out, whose cores are in their slots or will not be, and the latter alone."""
        with self._lock:
            for request in finished:
                for kept in (self._pinned, self._next, self._ready, self._pages, self._tails, self._copying):
                    kept.pop(request, None)
                if self.queries:
                    self.queries.drop(request)
                if self.reader:
                    self.reader.drop(request)
                if request in self._delivering:
                    self._ended.add(request)
                if request in self._loading:
                    self._loading[request] = True
            out = self._sent, self._received, self._failed
            self._sent, self._received, self._failed = set(), set(), set()
        return out

    def news(self) -> WorkerMeta | None:
        """What has happened to requests that run, once."""
        with self._lock:
            news, self._news = self._news, WorkerMeta()
        return news or None

    def shutdown(self) -> None:
        for threads in (self._loads, self._copies, self._sends):
            threads.shutdown(wait=True, cancel_futures=True)
        self.store.release()

    # Into slots

    def _load(self, load: Load, fence: Fence) -> None:
        try:
            cores = self._pinned.get(load.request)
            if cores is None:
                cores = [self.store.cores(load.tenant, name) for name in load.objects[self.rank]]
                self._pinned[load.request] = cores
            slots = self._lay(cores, load.shift, load.slots)
            with self._after(fence):
                self._put(slots, load.slots, load.blocks, load.skip)
            failed = False
        except Exception as e:
            faults.count("its cores cannot be loaded", load.request, e)
            failed = True
            if isinstance(e, SemproxyError) and e.code == GONE:
                with self._lock:
                    self._news.gone.append(load.request)
        with self._lock:
            self._received.add(load.request)
            self.loaded += not failed
            if failed:
                self._failed.add(load.request)
            if self._loading.pop(load.request):
                self._pinned.pop(load.request, None)

    def _lay(self, cores: list[Cores], shift: int, slots: int) -> Slots | Ragged:
        out = lay(cores, self.shape, shift, not self.shape.folded)
        if out.slots > slots or (isinstance(out, Slots) and out.slots != slots):  # another rank may need more units
            raise SemproxyError("page.bad_shape", f"the stored cores take {out.slots} slots, and {slots} were planned for them")
        return out

    @torch.inference_mode()
    def _put(self, cores: Slots | Ragged, n: int, blocks: tuple[int, ...], skip: int, tail: list[Views] | None = None) -> None:
        """Cores into the first n slots of the blocks, and tokens behind them, but for the first `skip`."""
        even = cores if isinstance(cores, Slots) else None
        if isinstance(cores, Ragged):
            self._fill(cores, torch.tensor(blocks[: n // self.shape.block], dtype=torch.long), skip // self.shape.block)
            skip = max(skip, n)
        end = n + (tail[0][0].shape[1] if tail else 0)
        if skip >= end:
            return
        block = self.shape.block
        slots = torch.tensor([blocks[at // block] * block + at % block for at in range(skip, end)], dtype=torch.long)
        for i, layer in enumerate(self.layers):
            parts = [(even.keys[i, skip:], even.values[i, skip:])] if even else []
            if tail:
                cut = max(skip - n, 0)
                parts.append((tail[i][0].transpose(0, 1)[cut:], tail[i][1].transpose(0, 1)[cut:]))
            layer.put(torch.cat([k for k, _ in parts]), torch.cat([v for _, v in parts]), slots)
            if layer.bias is not None and even and even.bias is not None and skip < n:  # the write has set it to that of a token
                layer.bias[slots[: n - skip].to(self.device)] = even.bias[i, skip:].to(self.device)

    def _fill(self, cores: Ragged, blocks: torch.Tensor, skip: int) -> None:
        """Cores into the units of the blocks, but for the first `skip` blocks."""
        assert self.units is not None
        block, ids = self.shape.block, self.units.of(blocks.to(self.device)).flatten().long()
        first = skip * self.shape.layers * self.shape.kv_heads
        at = 0
        for i, layer in enumerate(self.layers):
            n = len(cores.keys[i]) // block
            cut = min(max(first - at, 0), n)
            slots = (ids[at + cut : at + n, None] * block + torch.arange(block, device=ids.device)).flatten()
            if len(slots):
                layer.put(cores.keys[i][cut * block :, None], cores.values[i][cut * block :, None], slots, self.units.cache)
            at += n

    def _hold(self, hold: Hold) -> None:
        """Tell the reader where the cores of a request lie."""
        assert self.reader is not None
        ready = self._ready.get(hold.request)
        lengths = ready.lengths if isinstance(ready, Ragged) else None
        if ready is None and hold.lengths and (of := hold.lengths[self.rank]):
            lengths = torch.tensor(of).view(self.shape.layers, self.shape.kv_heads)
        self.reader.hold(hold.request, hold.blocks, lengths)

    def _enter(self, enter: Enter) -> None:
        """In the step that needs them: cores that are here already, so that nothing can fail that lets the engine go on."""
        tail = self._tails.pop(enter.request, None)
        if tail is not None and enter.tail:
            tail = [(rotate(k, self.shape.rope, enter.shift), v) for k, v in tail]
        self._put(self._ready[enter.request], enter.slots, enter.blocks, enter.skip, tail if enter.tail else None)
        self.entered += 1

    # Out of slots

    def _copy(self, save: Save, asked: Asked | None, needed: torch.Tensor | None, fence: Fence, before: Future[None] | None) -> None:
        """What must end before the blocks may be given to another."""
        size = 0
        kept: list[Views] = []
        try:
            if before is not None:
                wait([before])
            if save.pages:
                first, last = save.pages[0][0], save.pages[-1][1]
                size = (last - first) * len(self.layers) * 2 * self.shape.kv_heads * self.shape.head_dim * self.shape.dtype.itemsize
                self._reserve(size)
                kept = self._gather(save.blocks, first + save.shift, last + save.shift, fence)
        except Exception as e:
            self._gone(save, size, e, [])
        finally:
            if not save.live:
                with self._lock:
                    self._sent.add(save.request)  # its blocks are free
        if kept:
            self._sends.submit(self._deliver, save, kept, asked, needed, size)

    def _deliver(self, save: Save, kept: list[Views], asked: Asked | None, needed: torch.Tensor | None, size: int) -> None:
        replies: list[list[Result]] = []
        try:
            traceparent.set(save.traceparent)
            self._send(save, kept, asked, needed, replies)
            if save.live:
                self._keep(save, [Cores.decode(reply.body) for of in replies for reply in of])
        except Exception as e:
            self.store.failed(save.tenant, e)
            self._gone(save, size, e, replies)
            return
        self._gone(save, size, None, replies)

    def _stored(self, save: Save, replies: list[list[Result]]) -> int:
        """How many of its pages, from the first, are found from now on: a lookup wants fewer slots than tokens in all."""
        n, cores = 0, []
        for i, ((_, last), of) in enumerate(zip(save.pages, replies, strict=False)):
            if not all(reply.header("Semproxy-Object") for reply in of):
                break
            cores += [Cores.decode(reply.body) for reply in of]
            if width(cores, self.shape) + save.shift < last - save.pages[0][0]:
                n = i + 1
        return n

    def _cancelled(self, number: int, copying: Future[None]) -> None:
        if copying.cancelled():
            self._tell(number, 0)

    def _tell(self, number: int, stored: int) -> None:
        with self._lock:
            self._news.kept[number] = [stored]

    def _gone(self, save: Save, size: int, e: BaseException | None, replies: list[list[Result]]) -> None:
        """Nothing of it is on the way any more."""
        if save.number:
            stored = 0
            try:
                stored = self._stored(save, replies)
            except Exception as other:
                faults.count("what is stored of it is not announced", save.request, other)
            self._tell(save.number, stored)
        if e is not None:
            faults.count("its KV is not kept", save.request, e)
        with self._lock:
            self._on_the_way -= size
            if save.live:
                self._delivering.discard(save.request)
                self._ended.discard(save.request)
                if e is not None:
                    self._news.failed[save.request] = e.code if isinstance(e, SemproxyError) else "internal"

    def _keep(self, save: Save, cores: list[Cores]) -> None:
        """Cores of a request that runs: with those that it has it may change over from the next step on."""
        cores = (self._pages.get(save.request) or self._pinned.get(save.request, [])) + cores
        n, tokens = width(cores, self.shape), save.pages[-1][1]
        slots = self._lay(cores, n - tokens, n) if n < tokens else None
        with self._lock:
            if save.request in self._ended:
                return
            if slots is None:
                self._news.failed[save.request] = "policy.exact"
                return
            held = sum(s.bytes for of in (self._next, self._ready) for s in of.values())
            if slots.bytes + held > self.settings.cache_bytes:
                raise SemproxyError("busy", "the cores of requests that run take more than cache_bytes")
            self._next[save.request] = slots
            if self.settings.live_every:
                self._pages[save.request] = cores
            self._news.ready[save.request] = [n]

    def _reserve(self, size: int) -> None:
        with self._lock:
            self._on_the_way += size
            if self._on_the_way > self.settings.save_bytes:
                raise SemproxyError(
                    "busy", f"{self._on_the_way} bytes of KV are on their way; save_bytes allows {self.settings.save_bytes}"
                )

    @torch.inference_mode()
    def _gather(self, blocks: tuple[int, ...], lo: int, hi: int, fence: Fence) -> list[Views]:
        """Keys and values of every layer in the slots from lo to hi of these blocks, [kv_heads, tokens, dims], on the CPU."""
        block = self.shape.block
        where = torch.tensor(blocks[lo // block : -(-hi // block)], dtype=torch.long)
        cut = slice(lo - lo // block * block, hi - lo // block * block)
        with self._after(fence):
            where = where.to(self.device)
            out = []
            for layer in self.layers:
                keys, values = layer.layout.read(where, block)
                out.append((keys[cut].transpose(0, 1).cpu(), values[cut].transpose(0, 1).cpu()))
            return out

    def _send(self, save: Save, copied: list[Views], asked: Asked | None, needed: torch.Tensor | None, replies: list[list[Result]]) -> None:
        """Send the pages, those of a range of tokens together. The first that fails ends it: what follows could not be found."""
        client = self.store.client(save.tenant)
        salt = rank_salt(self.rank, self.shape.ranks, self.shape.folded)
        chain, first = links(save.ids, salt), save.pages[0][0]
        per_token = 2 * self.shape.kv_heads * self.shape.head_dim * self.shape.dtype.itemsize  # bytes of a layer
        if needed is not None:
            per_token += 4 * self.shape.kv_heads
        # Queries stand where they passed, whatever has become of the request's keys since.
        queries = rotate(asked.stacked(), self.shape.rope, -asked.shift) if asked else None
        fixed = queries[0].nbytes if queries is not None else 0
        for from_, to in save.pages:
            n, cut = to - from_, slice(from_ - first, to - first)
            step = min(max((client.max_page - OVERHEAD - PER_TOKEN * n) // (per_token * n + fixed), 1), len(copied))
            futures = []
            for at in range(0, len(copied), step):
                some = copied[at : at + step]
                page = Page(
                    model=self.shape.model,
                    sequence=save.sequence,
                    layout=self.layout,
                    layer_first=at,
                    token_first=from_,
                    tokens_total=len(save.ids),
                    page=at // step,
                    pages=-(-len(copied) // step),
                    rope=self.shape.rope,
                    k=to_wire(rotate(torch.stack([k[:, cut] for k, _ in some]), self.shape.rope, -save.shift)),
                    v=to_wire(torch.stack([v[:, cut] for _, v in some])),
                    token_ids=to_wire(torch.tensor(save.ids[from_:to], dtype=torch.int32)),
                    positions=to_wire(torch.arange(from_, to, dtype=torch.int32)),
                    protect=marks(save.protect, from_, to),
                    extra={
                        "prefix": chain[from_ // BLOCK],
                        **({"prefix_salt": salt} if salt else {}),
                        **({"headers": save.headers} if save.headers else {}),
                    },
                    folded=self.shape.folded,
                    granule=self.shape.block if self.shape.units else 0,
                    importance=to_wire(needed[at : at + len(some), :, from_:to].contiguous()) if needed is not None else None,
                    q=to_wire(queries[at : at + len(some)]) if queries is not None else None,
                    q_positions=to_wire(torch.tensor(asked.positions, dtype=torch.int32)) if asked else None,
                )
                futures.append(client.submit(page.encode()))
            try:
                replies.append([future.result() for future in futures])
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
            with self._lock:
                self.saved += len(futures)
            stats.add("pages", n=len(futures))

    def _after(self, fence: Fence) -> Any:
        """Copies inside come after the fence, and are done when it ends. On a CPU they are in order as they stand."""
        return Stream(self._streams, self.device, fence)


def _number(name: str) -> tuple[int, ...]:
    """Layers in the order of their numbers: model.layers.2 before model.layers.10."""
    return tuple(int(n) for n in re.findall(r"\d+", name))


def marks(ranges: tuple[tuple[int, int], ...] | None, first: int, last: int) -> Tensor | None:
    """The page's `protect`: which of its tokens lie in one of the ranges; None: they are not known."""
    if ranges is None:
        return None
    out = torch.zeros(last - first, dtype=torch.uint8)
    for a, b in ranges:
        out[max(a - first, 0) : max(b - first, 0)] = 1
    return to_wire(out)
