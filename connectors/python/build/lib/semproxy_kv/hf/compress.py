"""Send a cache to semproxy and put its cores in its place."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.cache_utils import Cache

from ..client import Client, LocalSidecar, Result
from ..client.local import local_policy
from ..errors import SemproxyError, UnsupportedModel
from ..wire import Cores
from . import pages
from .attention import install
from .layer import CompressedLayer, cache_bytes, plain
from .model import check_model, layout_of, rope_of

log = logging.getLogger("semproxy_kv")
IN_FLIGHT = 8  # pages of a cache that are sent and not answered, at most
CHANGED = "engine.changed"  # the cache is no longer the one that was sent

_faults: Counter[str] = Counter()
_lock = threading.Lock()
_local: dict[tuple[float, str], tuple[LocalSidecar, Client]] = {}


def faults() -> dict[str, int]:
    """How often a cache stayed as it was because of a fault, by code, since this process began."""
    with _lock:
        return dict(_faults)


@dataclass
class Report:
    """What became of a cache."""

    outcome: Literal["compressed", "exact", "kept"]  # exact: the policy leaves it as it is; kept: a fault, see error
    tokens: int  # that were sent, of the longest sequence
    bytes_before: int
    bytes_after: int
    seconds: float
    pages: int = 0
    attempts: int = 0  # sends, of all pages
    shared: int = 0  # pages that went through shared memory
    error: SemproxyError | None = None
    fidelity: list[dict[str, str]] = field(default_factory=list)  # what the sidecar measured, of each page
    rule: str = ""  # of the policy, that decided

    def __str__(self) -> str:
        share = self.bytes_after / self.bytes_before if self.bytes_before else 1.0
        text = f"{self.outcome}: {self.tokens} tokens, {self.bytes_before} -> {self.bytes_after} bytes ({share:.1%})"
        return text + (f"; {self.error}" if self.error else "")


def compress(
    model: Any,
    cache: Cache,
    input_ids: torch.Tensor,
    *,
    client: Client | None = None,
    backend: Literal["local"] | None = None,
    ratio: float = 0.5,
    tokenizer: str | Path = "",
    attention_mask: torch.Tensor | None = None,
    on_error: Literal["keep", "raise"] = "keep",
    **options: Any,
) -> Report:
    """Compress a cache in place: its tokens so far become cores, later ones are added as they are.

    cache is a DynamicCache, or one that was compressed before (then only what came after its cores is sent). input_ids are
    the ids of all its tokens, [batch, tokens]; more, at the end, are ignored. attention_mask is that of the prompt, padded on
    the left. Give a client, or backend="local", which runs the semproxy binary with one policy: ratio. tokenizer is then the
    path of the model's tokenizer.json, so that pages are cut where the text pauses; a client's sidecar has its own.

    A fault of semproxy leaves the cache as it is (on_error="keep"), and is in the report, in faults() and in the log. A model
    or a cache that is not supported raises UnsupportedModel; a local semproxy that cannot be started raises SemproxyError.
    Options are those of begin().
    """
    pending = begin(
        model, cache, input_ids, client=client, backend=backend, ratio=ratio, tokenizer=tokenizer, attention_mask=attention_mask, **options
    )
    return pending.finish(on_error)


def begin(
    model: Any,
    cache: Cache,
    input_ids: torch.Tensor,
    *,
    client: Client | None = None,
    backend: Literal["local"] | None = None,
    ratio: float = 0.5,
    tokenizer: str | Path = "",
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    queries: dict[int, torch.Tensor] | None = None,
    boundary: torch.Tensor | None = None,
    protect: torch.Tensor | None = None,
    importance: torch.Tensor | None = None,
    layers_per_page: int | None = None,
    model_name: str | None = None,
    sequence: str | None = None,
) -> Pending:
    """Send a cache without waiting. The model may go on with it; finish() swaps what was sent and leaves later tokens.

    queries come from capture_queries(). boundary and protect, [batch, tokens], mark tokens after which the text pauses and
    tokens that must not be merged. importance, [layers, kv_heads, tokens] or with the batch behind the layers, says how much each token
    is needed, such as KVzip's scores. layers_per_page: None sends as many layers together as a message holds, so that an
    adaptive budget is spread over them; 1 sends each by itself. model_name is what policies match, by default
    the name that the model was loaded by; sequence names the cache's pages (in a batch with .0, .1 ... behind it), such as the object that
    semproxy's proxy gave to a request. position_ids, [batch, tokens], if they are not those that generate() counts: 0,
    1, 2 ... from the first token that is no padding.
    """
    check_model(model)
    snapshot = _snapshot(model, cache, input_ids, attention_mask, position_ids)
    snapshot.boundary, snapshot.protect = _cut(boundary, snapshot), _cut(protect, snapshot)
    snapshot.importance = _needed(importance, snapshot)
    if client is None:
        if backend != "local":
            raise TypeError('give a client, or backend="local"')
        client = local_client(ratio, tokenizer)
    install(model)
    pending = Pending(model, cache, snapshot)
    try:
        if queries:  # an older sidecar knows only the last ones of a page
            snapshot.queries, snapshot.placed = queries, "q_positions" in getattr(client, "page_tensors", ())
        pending.parts = pages.parts(snapshot, client.max_page, layers_per_page)
        name = model_name or _name(model)
        which = sequence or uuid.uuid4().hex
        pending.start(client, pages.encode(snapshot, pending.parts, name, layout_of(model), rope_of(model), which))
    except SemproxyError as e:
        pending.failed = e
    return pending


def _needed(importance: torch.Tensor | None, s: pages.Snapshot) -> torch.Tensor | None:
    """The importance of the snapshot's tokens, [layers, batch, kv_heads, tokens]."""
    if importance is None:
        return None
    if importance.ndim == 3:
        importance = importance[:, None]
    batch, heads = s.keys[0].shape[:2]
    if importance.shape[:3] != (len(s.keys), batch, heads) or importance.shape[3] < s.first + s.tokens:
        wanted = [len(s.keys), batch, heads, s.first + s.tokens]
        raise ValueError(f"importance is {list(importance.shape)}, wanted {wanted}")
    return importance[..., s.first : s.first + s.tokens]


class Pending:
    """A cache on its way. End it with finish() or cancel()."""

    def __init__(self, model: Any, cache: Cache, snapshot: pages.Snapshot) -> None:
        self.model, self.cache, self.snapshot = model, cache, snapshot
        self.parts: list[pages.Part] = []
        self.futures: list[Future[Result]] = []
        self.failed: Exception | None = None
        self._sender: threading.Thread | None = None
        self._given_up = threading.Event()
        self.began = time.monotonic()
        self.before = cache_bytes(cache)

    def start(self, client: Client, blobs: Iterator[bytes]) -> None:
        """Send the pages from a thread of their own, a few at a time, each made when its turn comes."""
        turns = threading.Semaphore(IN_FLIGHT)

        def answered(f: Future[Result]) -> None:
            if f.cancelled() or f.exception():
                self._given_up.set()  # one page that fails is enough: no more are sent
            turns.release()

        def send() -> None:
            try:
                for blob in blobs:
                    turns.acquire()
                    if self._given_up.is_set():
                        return
                    future = client.submit(blob)
                    self.futures.append(future)
                    future.add_done_callback(answered)
            except Exception as e:
                self.failed = e

        self._sender = threading.Thread(target=send, name="semproxy_kv pages", daemon=True)
        self._sender.start()

    def ready(self) -> bool:
        """Whether finish() would not wait."""
        return not (self._sender and self._sender.is_alive()) and all(f.done() for f in self.futures)

    def cancel(self) -> None:
        """Give the pages up. The cache stays as it is."""
        self._given_up.set()
        for f in list(self.futures):
            f.cancel()
        if self._sender:
            self._sender.join()
        for f in self.futures:
            f.cancel()

    def finish(self, on_error: Literal["keep", "raise"] = "keep") -> Report:
        """Wait for the cores and swap them in. What came after the tokens that were sent stays as it is."""
        report = Report("kept", self.snapshot.tokens, self.before, self.before, 0.0, pages=len(self.parts))
        try:
            if self._sender:
                self._sender.join()
            if self.failed:
                raise self.failed
            self._swap(report)
        except SemproxyError as e:
            self.cancel()
            with _lock:
                _faults[e.code] += 1
            log.warning("the cache stays as it is: %s", e)
            report.outcome, report.error = "kept", e
            if on_error == "raise":
                raise
        report.seconds = time.monotonic() - self.began
        report.bytes_after = cache_bytes(self.cache)
        return report

    def _swap(self, report: Report) -> None:
        replies = []
        for f in self.futures:
            try:
                result = f.result()
            except CancelledError:
                raise SemproxyError("cancelled", "the pages were given up") from None
            report.attempts += result.attempts
            report.shared += result.shared
            report.rule = result.header("Semproxy-Rule")
            cores = None  # an exact page that no message could carry back: it is here
            if result.body or result.outcome != "exact":
                cores = Cores.decode(result.body)
                report.fidelity.append(cores.fidelity)
            replies.append((result.outcome, cores))
        if len(replies) < len(self.parts):
            raise SemproxyError("cancelled", "the pages were given up")
        if all(outcome == "exact" for outcome, _ in replies):
            report.outcome = "exact"
            return
        prefixes = pages.assemble(self.snapshot, self.parts, [cores for _, cores in replies])
        s = self.snapshot
        for layer, keys in zip(self.cache.layers, s.keys, strict=True):
            before = layer.prefix.tokens if isinstance(layer, CompressedLayer) else 0
            same = before == s.first and layer.keys.shape[0] == keys.shape[0] and layer.keys.shape[-2] >= s.tokens
            if not same or not torch.equal(layer.keys[:, :, s.tokens - 1], keys[:, :, -1]):
                raise SemproxyError(CHANGED, "the cache is no longer the one that was sent; its cores were thrown away")
        for i, prefix in enumerate(prefixes):
            layer = self.cache.layers[i]
            keys, values = (t[..., s.tokens :, :].clone() for t in (layer.keys, layer.values))
            if isinstance(layer, CompressedLayer):
                prefix = layer.prefix.join(prefix)
            self.cache.layers[i] = CompressedLayer(prefix, keys, values, self.model.config)
        report.outcome = "compressed"


def _name(model: Any) -> str:
    """What policies match: the name on the hub, or the folder's own name."""
    name: str = getattr(model.config, "_name_or_path", "") or model.config.model_type
    return Path(name).resolve().name if Path(name).is_dir() else name


def _snapshot(model: Any, cache: Cache, ids: torch.Tensor, mask: torch.Tensor | None, position_ids: torch.Tensor | None) -> pages.Snapshot:
    """What a cache holds after its cores. Raises UnsupportedModel for a cache of another kind."""
    layers = cache.layers
    if len(layers) != model.config.num_hidden_layers:
        raise UnsupportedModel(f"the cache has {len(layers)} layers, the model {model.config.num_hidden_layers}: prefill first")
    if getattr(cache, "offloading", False):
        raise UnsupportedModel("the cache is offloaded; compress it before, or use DynamicCache")
    for layer in layers:
        if not (isinstance(layer, CompressedLayer) or plain(layer)) or not layer.is_initialized:
            raise UnsupportedModel(f"layers of type {type(layer).__name__} are not supported; use DynamicCache")
    firsts = {layer.prefix.tokens if isinstance(layer, CompressedLayer) else 0 for layer in layers}
    total, first = cache.get_seq_length(), min(firsts)
    if len(firsts) > 1 or any(layer.get_seq_length() != total for layer in layers):
        raise UnsupportedModel("the layers of the cache do not hold the same tokens")
    if total == first:
        raise UnsupportedModel("the cache holds no token that is not a core already")
    batch = layers[0].keys.shape[0]
    if ids.ndim != 2 or ids.shape[0] != batch or ids.shape[1] < total:
        raise ValueError(f"input_ids must be [{batch}, at least {total}], the tokens of the cache; got {list(ids.shape)}")
    valid = torch.ones(batch, total, dtype=torch.bool) if mask is None else mask[:, :total].bool().cpu()
    if valid.shape[1] < total:  # tokens that were generated since
        valid = torch.cat([valid, valid.new_ones(batch, total - valid.shape[1])], -1)
    if (valid[:, :-1] & ~valid[:, 1:]).any() or not valid[:, -1].all():
        raise UnsupportedModel("padding must stand on the left")
    if position_ids is None:
        positions = (valid.long().cumsum(-1) - 1).clamp(min=0)
    elif position_ids.ndim != 2 or position_ids.shape[-1] < total:
        raise UnsupportedModel("positions must be one number per token of the cache, [batch, tokens]")
    else:
        positions = position_ids[:, :total].cpu().expand(batch, -1)
    if first and not valid[:, first:].all():
        raise UnsupportedModel("padding cannot follow cores")
    for layer in layers:
        if isinstance(layer, CompressedLayer):
            layer.lent = True
    return pages.Snapshot(
        [layer.keys for layer in layers],
        [layer.values for layer in layers],
        ids[:, first:total].cpu(),
        positions[:, first:],
        valid[:, first:],
        first,
    )


def _cut(marks: torch.Tensor | None, s: pages.Snapshot) -> torch.Tensor | None:
    """The marks of the snapshot's tokens, of marks for all tokens."""
    if marks is None:
        return None
    if marks.ndim != 2 or marks.shape[0] != s.ids.shape[0] or marks.shape[1] < s.first + s.tokens:
        raise ValueError(f"marks must be [{s.ids.shape[0]}, at least {s.first + s.tokens}], got {list(marks.shape)}")
    return marks[:, s.first : s.first + s.tokens].cpu()


def local_client(ratio: float, tokenizer: str | Path = "") -> Client:
    """A client of the semproxy binary with that ratio and tokenizer.json, run as a child of this process and ended with it."""
    which = ratio, str(Path(tokenizer).resolve()) if tokenizer else ""
    if tokenizer and not Path(tokenizer).is_file():
        raise SemproxyError("local.no_tokenizer", f"there is no file {tokenizer}; give the path of the model's tokenizer.json")
    with _lock:
        if which in _local:
            sidecar, client = _local[which]
            if sidecar.process.poll() is None:
                return client
            _close(which)
        sidecar = LocalSidecar(local_policy(ratio), tokenizer=which[1])
        try:
            _local[which] = sidecar, sidecar.client()
        except BaseException:
            sidecar.close()
            raise
        return _local[which][1]


def _close(which: tuple[float, str]) -> None:
    sidecar, client = _local.pop(which)
    client.close()
    sidecar.close()


@atexit.register
def close_local() -> None:
    """End every child of backend="local"."""
    with _lock:
        for which in list(_local):
            _close(which)
