"""What the scheduler's side tells the workers in each step, and what they tell it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata, KVConnectorWorkerMetadata

from ..errors import SemproxyError
from .queries import Ask


@dataclass(frozen=True)
class Load:
    """Put stored cores into slots of a request that waits for them."""

    request: str
    tenant: str
    objects: tuple[tuple[str, ...], ...]  # of each rank, in the order of tokens, then layers
    slots: int  # for the cores
    shift: int  # of positions, added to those of the cores: slots less tokens
    blocks: tuple[int, ...]  # of all these slots
    skip: int  # slots that hold their cores already


@dataclass(frozen=True)
class Save:
    """Send the KV of a request. ids are those of all logical tokens; token t is at slot t + shift.

    Live: the request runs on, and the cores that come back are kept for it. Otherwise it has finished, and its blocks are free
    once they have been copied; without pages, once what was sent of it before has been.
    """

    request: str
    tenant: str
    sequence: str
    ids: tuple[int, ...]
    pages: tuple[tuple[int, int], ...]  # (from, to), logical
    shift: int
    blocks: tuple[int, ...]
    live: bool = False
    traceparent: str = ""
    protect: tuple[tuple[int, int], ...] | None = None  # ranges [from, to) of tokens that stay exact; None: not known
    headers: str = ""  # JSON: those of the request's headers that the tenant's rules look at
    number: int = 0  # to report by how many of the pages exist as cores; 0: nobody asks
    read: tuple[str, tuple[tuple[int, int, int], ...]] | None = None  # the text that was read again, and its parts as Repeat has them


@dataclass(frozen=True)
class Leave:
    """A request changes over: keep its tokens from first to last, whose blocks are about to be freed."""

    request: str
    first: int
    last: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class Enter:
    """Put the cores that a request has waited for into its new blocks, and behind them the tokens that were kept of it."""

    request: str
    slots: int  # of the cores
    shift: int
    tail: int  # tokens that were kept
    blocks: tuple[int, ...]
    skip: int  # slots that are filled already


@dataclass(frozen=True)
class Hold:
    """The cores of a request lie in these blocks of it from this step on."""

    request: str
    blocks: tuple[int, ...]
    lengths: tuple[tuple[int, ...], ...]  # of each rank: slots of every layer and head; (): even, or as the worker knows them


@dataclass(frozen=True)
class Repeat:
    """Tokens of a request that pass in this step, and repeat a part of the text before them."""

    text: str  # its name, in all requests that repeat a part of it
    tokens: int  # of it
    first: int  # of the part
    last: int
    begin: int  # which tokens of the repetition pass
    end: int
    slot: int  # of the first of them
    blocks: tuple[int, ...]  # of the request


@dataclass
class StepMeta(KVConnectorMetadata):
    loads: list[Load] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
    leaves: list[Leave] = field(default_factory=list)
    enters: list[Enter] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    reads: dict[str, int] = field(default_factory=dict)  # requests on cores that pass in this step, and their first blocks
    preempted: tuple[str, ...] = ()


@dataclass
class WorkerMeta(KVConnectorWorkerMetadata):
    """What became of requests that were sent while they run, by worker: slots of their cores, or why there are none. And what
    events are made of."""

    ready: dict[str, list[int]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    kept: dict[int, list[int]] = field(default_factory=dict)  # by the number of a Save: of each worker, the pages that exist as cores
    gone: list[str] = field(default_factory=list)  # requests whose cores were not there when they were to be loaded

    def __bool__(self) -> bool:
        return bool(self.ready or self.failed or self.kept or self.gone)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> WorkerMeta:
        assert isinstance(other, WorkerMeta)
        ready = {r: self.ready.get(r, []) + other.ready.get(r, []) for r in {*self.ready, *other.ready}}
        kept = {n: self.kept.get(n, []) + other.kept.get(n, []) for n in {*self.kept, *other.kept}}
        return WorkerMeta(ready, {**self.failed, **other.failed}, kept, self.gone + other.gone)


def headers(given: Any) -> dict[str, str]:
    """What a request's `headers` say, or SemproxyError: a rule that looks at one must not take another decision."""
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in given.items()):
        raise SemproxyError("page.bad_metadata", "headers must be a JSON object of texts")
    return dict(given)


def ranges(given: Any) -> tuple[tuple[int, int], ...] | None:
    """What a request's `protect` says, or SemproxyError: what is to stay exact is never guessed."""
    if given is None:
        return None
    try:
        pairs = tuple((first, last) for first, last in given)
    except (TypeError, ValueError):
        pairs = ((1, 0),)
    if not all(type(first) is int and type(last) is int and 0 <= first <= last for first, last in pairs):
        raise SemproxyError("page.bad_metadata", "protect must list ranges [from, to) of the prompt's tokens")
    return pairs
