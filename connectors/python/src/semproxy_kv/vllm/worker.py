"""The worker's side: copies blocks out and sends them, fetches cores and writes them into slots. Nothing here stops a step:
all of it runs in threads, and what fails is counted and reported."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import SemproxyError, UnsupportedModel
from ..tensors import heads, rotate, to_wire
from ..wire import Cores, Page, Tensor
from . import faults
from .check import Shape
from .layout import Views, detect
from .metadata import Load, Save
from .prefix import links, rank_salt
from .settings import BLOCK, Settings
from .store import Store, store_of, sum_of_heads, traceparent

OVERHEAD = 8192  # bytes of a page besides its large tensors
PER_TOKEN = 16


@dataclass
class LayerSlots:
    """Keys and values of a layer by block and slot, [blocks, slots, kv_heads, dims], and their bias, [blocks, slots, kv_heads]."""

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor


class Fence:
    """What was enqueued on the device before, so that a thread's copies come after it. Nothing on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event() if device.type == "cuda" else None
        if self.event:
            self.event.record(torch.cuda.current_stream(device))


class WorkerSide:
    def __init__(self, settings: Settings, shape: Shape, layout: str, rank: int) -> None:
        self.settings, self.shape, self.layout, self.rank = settings, shape, layout, rank
        self.store: Store = store_of(settings)
        self.layers: list[LayerSlots] = []
        self.saved = self.loaded = 0  # pages; requests
        self._loads = ThreadPoolExecutor(2, thread_name_prefix="semproxy load")
        self._saves = ThreadPoolExecutor(2, thread_name_prefix="semproxy save")
        self._lock = threading.Lock()
        self._sent: set[str] = set()
        self._received: set[str] = set()
        self._failed: set[str] = set()
        self._pinned: dict[str, list[Cores]] = {}  # of requests that run, so that they find them again after a preemption
        self._loading: dict[str, bool] = {}  # requests, and whether they have ended meanwhile
        self._on_the_way = 0  # bytes of KV that were copied out and not answered
        self._streams = threading.local()

    def register(self, kv_caches: dict[str, torch.Tensor], blocks: int, attach: Callable[[str, int, torch.device], torch.Tensor]) -> None:
        """Take the engine's tensors. attach gives a layer's slots their bias, or raises UnsupportedModel."""
        if len(kv_caches) != self.shape.layers:
            raise UnsupportedModel(f"the engine has {len(kv_caches)} KV caches, its configuration {self.shape.layers} layers")
        self.layers = []
        for name in sorted(kv_caches, key=_number):
            t = kv_caches[name]
            keys, values = detect(t, self.shape, blocks).split(t)
            bias = attach(name, blocks * self.shape.block, t.device)
            self.layers.append(LayerSlots(keys, values, bias.view(blocks, self.shape.block, self.shape.kv_heads)))

    @property
    def device(self) -> torch.device:
        return self.layers[0].keys.device

    def start_loads(self, loads: list[Load]) -> None:
        for load in loads:
            with self._lock:
                self._loading[load.request] = False
            self._loads.submit(self._load, load, Fence(self.device))

    def start_saves(self, saves: list[Save]) -> None:
        for save in saves:
            self._saves.submit(self._save, save, Fence(self.device))

    def results(self, finished: set[str]) -> tuple[set[str], set[str], set[str]]:
        """Requests whose blocks were copied out, whose cores are in their slots or will not be, and the latter alone."""
        with self._lock:
            for request in finished:
                self._pinned.pop(request, None)
                if request in self._loading:
                    self._loading[request] = True
            out = self._sent, self._received, self._failed
            self._sent, self._received, self._failed = set(), set(), set()
        return out

    def shutdown(self) -> None:
        for pool in (self._loads, self._saves):
            pool.shutdown(wait=True, cancel_futures=True)
        self.store.release()

    # Loading

    def _load(self, load: Load, fence: Fence) -> None:
        try:
            cores = self._pinned.get(load.request)
            if cores is None:
                cores = [self.store.cores(load.tenant, name) for name in load.objects[self.rank]]
                self._pinned[load.request] = cores
            self._write(load, cores, fence)
            failed = False
        except Exception as e:
            faults.count("its cores cannot be loaded", load.request, e)
            failed = True
        with self._lock:
            self._received.add(load.request)
            self.loaded += not failed
            if failed:
                self._failed.add(load.request)
            if self._loading.pop(load.request):
                self._pinned.pop(load.request, None)

    @torch.inference_mode()
    def _write(self, load: Load, cores: list[Cores], fence: Fence) -> None:
        """Cores of all pages, one after the other, into the slots; what is left over is padding that nothing attends to."""
        if max(sum_of_heads(cores, self.shape)) > load.slots:
            raise SemproxyError("page.bad_shape", "the stored cores are more than the slots that were planned for them")
        s = self.shape
        cells: dict[tuple[int, int], list[Any]] = {}
        for page in cores:
            for (number, head), found in heads(page, s.dtype).items():
                cells.setdefault((page.layer_first + number, head), []).append(found)
        where = torch.tensor(load.blocks[load.skip :], dtype=torch.long)
        with self._after(fence):
            where = where.to(self.device)
            for i, layer in enumerate(self.layers):
                keys = torch.zeros(load.slots, s.kv_heads, s.head_dim, dtype=s.dtype)
                values = torch.zeros_like(keys)
                bias = torch.full((load.slots, s.kv_heads), float("-inf"))
                for head in range(s.kv_heads):
                    parts = cells[i, head]
                    n = sum(len(part.bias) for part in parts)
                    keys[:n, head] = rotate(torch.cat([part.keys for part in parts]), s.rope, load.shift)
                    values[:n, head] = torch.cat([part.values for part in parts])
                    bias[:n, head] = torch.cat([part.bias for part in parts])
                for to, data in ((layer.keys, keys), (layer.values, values), (layer.bias, bias)):
                    to[where] = data.view(-1, s.block, *data.shape[1:])[load.skip :].to(self.device)

    # Saving

    def _save(self, save: Save, fence: Fence) -> None:
        first, last = save.pages[0][0], save.pages[-1][1]
        size = (last - first) * len(self.layers) * 2 * self.shape.kv_heads * self.shape.head_dim * self.shape.dtype.itemsize
        try:
            copied: list[Views] = []
            try:
                self._reserve(size)
                copied = self._gather(save, first, last, fence)
            finally:
                with self._lock:
                    self._sent.add(save.request)  # its blocks are free
            traceparent.set(save.traceparent)
            self._send(save, copied)
        except Exception as e:
            self.store.failed(save.tenant, e)
            faults.count("its KV is not kept", save.request, e)
        finally:
            with self._lock:
                self._on_the_way -= size

    def _reserve(self, size: int) -> None:
        with self._lock:
            self._on_the_way += size
            if self._on_the_way > self.settings.save_bytes:
                raise SemproxyError(
                    "busy", f"{self._on_the_way} bytes of KV are on their way; save_bytes allows {self.settings.save_bytes}"
                )

    @torch.inference_mode()
    def _gather(self, save: Save, first: int, last: int, fence: Fence) -> list[Views]:
        """Keys and values of every layer for the logical tokens from first to last, [kv_heads, tokens, dims], on the CPU."""
        block = self.shape.block
        lo, hi = first + save.shift, last + save.shift
        where = torch.tensor(save.blocks[lo // block : -(-hi // block)], dtype=torch.long)
        cut = slice(lo - lo // block * block, hi - lo // block * block)
        with self._after(fence):
            where = where.to(self.device)
            return [
                (layer.keys[where].flatten(0, 1)[cut].transpose(0, 1).cpu(), layer.values[where].flatten(0, 1)[cut].transpose(0, 1).cpu())
                for layer in self.layers
            ]

    def _send(self, save: Save, copied: list[Views]) -> None:
        """Send the pages, those of a range of tokens together. The first that fails ends it: what follows could not be found."""
        client = self.store.client(save.tenant)
        salt = rank_salt(self.rank, self.shape.ranks)
        chain, first = links(save.ids, salt), save.pages[0][0]
        width = 2 * self.shape.kv_heads * self.shape.head_dim * self.shape.dtype.itemsize
        for from_, to in save.pages:
            n, cut = to - from_, slice(from_ - first, to - first)
            step = min(max((client.max_page - OVERHEAD - PER_TOKEN * n) // (width * n), 1), len(copied))
            futures = []
            for at in range(0, len(copied), step):
                some = copied[at : at + step]
                keys = rotate(torch.stack([k[:, cut] for k, _ in some]), self.shape.rope, -save.shift)
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
                    k=to_wire(keys),
                    v=to_wire(torch.stack([v[:, cut] for _, v in some])),
                    token_ids=to_wire(torch.tensor(save.ids[from_:to], dtype=torch.int32)),
                    positions=to_wire(torch.arange(from_, to, dtype=torch.int32)),
                    protect=marks(save.protect, from_, to),
                    extra={"prefix": chain[from_ // BLOCK], **({"prefix_salt": salt} if salt else {})},
                )
                futures.append(client.submit(page.encode()))
            try:
                for future in futures:
                    future.result()
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
            with self._lock:
                self.saved += len(futures)

    def _after(self, fence: Fence) -> Any:
        """Copies inside come after the fence, and are done when it ends. On a CPU they are in order as they stand."""
        return _Stream(self._streams, self.device, fence)


class _Stream:
    """A stream of this thread's own, behind a fence."""

    def __init__(self, kept: threading.local, device: torch.device, fence: Fence) -> None:
        self._kept, self._device, self._fence = kept, device, fence

    def __enter__(self) -> None:
        if self._fence.event is None:
            return
        if not hasattr(self._kept, "stream"):
            self._kept.stream = torch.cuda.Stream(self._device)
        self._kept.stream.wait_event(self._fence.event)
        self._context = torch.cuda.stream(self._kept.stream)
        self._context.__enter__()

    def __exit__(self, *e: Any) -> None:
        if self._fence.event is not None:
            self._context.__exit__(*e)
            self._kept.stream.synchronize()


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
