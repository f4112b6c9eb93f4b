"""Clients of the tenants, and the cores that were fetched: shared by scheduler and worker where they are one process."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..client import Client
from ..errors import SemproxyError
from ..tensors import NAMES
from ..wire import Cores
from .check import Shape
from .cores import ragged_lengths, width
from .prefix import rank_salt
from .settings import BLOCK, Settings
from .substitute import Plan, digest_of

GONE = "not_found"  # the code of an object that is not there any more

traceparent: contextvars.ContextVar[str] = contextvars.ContextVar("semproxy_traceparent", default="")


def _trace() -> dict[str, str]:
    return {"traceparent": t} if (t := traceparent.get()) else {}


class Store:
    """What semproxy keeps, as far as this engine asks for it. Safe for concurrent use. Ends with release()."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._clients: dict[str, Client] = {}
        self._rest_until: dict[str, float] = {}
        self._cores: OrderedDict[tuple[str, str], tuple[Cores, int]] = OrderedDict()
        self._bytes = 0
        self._users = 0
        self._lock = threading.Lock()
        self._connecting = threading.Lock()

    def client(self, tenant: str) -> Client:
        """The tenant's client. Raises SemproxyError, at once where semproxy could not be reached a moment ago."""
        with self._connecting:
            if time.monotonic() < self._rest_until.get(tenant, 0.0):
                raise SemproxyError("unreachable", "semproxy could not be reached a moment ago")
            if found := self._clients.get(tenant):
                return found
            options = replace(self.settings.options(tenant), trace=_trace)
            try:
                self._clients[tenant] = Client(self.settings.url, options)
            except SemproxyError as e:
                self.failed(tenant, e)
                raise
            return self._clients[tenant]

    def failed(self, tenant: str, e: BaseException) -> None:
        """Let a tenant's requests pass without semproxy for a while, when nobody answers."""
        if isinstance(e, SemproxyError) and e.code in ("unreachable", "deadline"):
            self._rest_until[tenant] = time.monotonic() + self.settings.pause

    def cores(self, tenant: str, name: str) -> Cores:
        """The cores of that name. Raises SemproxyError."""
        with self._lock:
            if found := self._cores.get((tenant, name)):
                self._cores.move_to_end((tenant, name))
                return found[0]
        body = self.client(tenant).get(name).body
        cores = Cores.decode(body)
        with self._lock:
            if (tenant, name) not in self._cores and len(body) <= self.settings.cache_bytes:
                self._cores[tenant, name] = cores, len(body)
                self._bytes += len(body)
            while self._bytes > self.settings.cache_bytes:
                self._bytes -= self._cores.popitem(last=False)[1][1]
        return cores

    def find(
        self,
        tenant: str,
        ids: Sequence[int],
        total: int,
        salt: str | None,
        shape: Shape,
        layout: str,
        sequence: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[Plan, list[Cores]] | None:
        """Cores for as many of the first tokens as are stored, and the plan to use them; None where that saves no slot.

        ids are the tokens that may be replaced, total is how many the prompt has; sequence and headers are what its pages would say.
        Raises SemproxyError.
        """
        client = self.client(tenant)
        found: list[list[dict[str, Any]]] = []
        for rank in range(shape.ranks):
            request = {
                "model": shape.model,
                "layout": layout,
                "dtype": NAMES[shape.dtype],
                "rope": json.loads(shape.rope.json()),
                "layers": shape.layers,
                "kv_heads": shape.kv_heads,
                "head_dim": shape.head_dim,
                "token_ids": list(ids),
                "tokens_total": total,
                "prefix_block": BLOCK,
                "prefix_salt": rank_salt(rank, shape.ranks, shape.folded),
                **({"sequence": sequence} if sequence else {}),
                **({"headers": headers} if headers else {}),
            }
            found.append(json.loads(client.get(json.dumps(request)).body)["pages"])
        ends = [{0, *(page["token_first"] + page["tokens"] for page in pages)} for pages in found]
        tokens = max(set.intersection(*ends))
        if tokens < self.settings.min_tokens:
            return None
        pages = [[page for page in of if page["token_first"] + page["tokens"] <= tokens] for of in found]
        objects = tuple(tuple(page["object"] for page in of) for of in pages)
        cores = [[self.cores(tenant, name) for name in of] for of in objects]
        slots = max(width(of, shape) for of in cores)
        if slots >= tokens:
            return None
        ragged = [ragged_lengths(of, shape) for of in cores]
        lengths = tuple(() if n is None else tuple(n.flatten().tolist()) for n in ragged)
        return Plan(tokens, slots, objects, digest_of(tenant, objects, salt), lengths), [x for of in cores for x in of]

    def acquire(self) -> Store:
        self._users += 1
        return self

    def release(self) -> None:
        """End the clients when nobody uses this any more."""
        self._users -= 1
        if self._users:
            return
        _stores.pop(repr(self.settings), None)
        for client in self._clients.values():
            client.close()
        self._clients.clear()


_stores: dict[str, Store] = {}


def store_of(settings: Settings) -> Store:
    """The store of these settings in this process. Give it back with release()."""
    return _stores.setdefault(repr(settings), Store(settings)).acquire()
