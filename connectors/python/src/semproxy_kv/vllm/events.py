"""KV events of prefixes that exist as cores: vLLM's own BlockStored and BlockRemoved, which go over its publisher beside its own.

A router or an indexer that follows an engine's events knows a prefix by the hashes of its blocks. Inside the engine placeholders stand
for a prefix that exists as cores, so what vLLM says of it is of no use to anybody. Said here are the hashes of the original tokens, as
vLLM's own hasher gives them, with a medium of their own: who asks for these tokens here computes none of them, and gets an answer that
is not exact.

A page is used as a whole or not at all, so it is announced and taken back as a whole.
"""

from __future__ import annotations

import copy
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, BlockStored
from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys, maybe_convert_block_hash, to_event_extra_keys

MEDIUM = "SEMPROXY_CORES"  # lossy: fewer entries than tokens, whatever the tenant's policy says
PAGES = 1 << 16  # that are remembered; what is forgotten is taken back, and announced again when it is found
PATIENCE = 120.0  # seconds for which the engine's loop goes on for the sake of pages that are not answered

Key = tuple[str, str]  # tenant, and what its rules look at: others do not find these pages
End = tuple[Key, bytes]  # of a page: the hash of its last whole block


@dataclass(frozen=True)
class Blocks:
    """The whole blocks of a sequence: original tokens, with the salt that the request came with."""

    request: Any  # a copy of vLLM's Request that has these tokens
    hashes: Sequence[bytes]

    @property
    def tokens(self) -> Sequence[int]:
        return self.request.all_token_ids


def blocks_of(request: Any, tokens: list[int], salt: str | None, known: Sequence[bytes] = ()) -> Blocks:
    """By the request's own hasher, which is vLLM's. known are the hashes of the first blocks."""
    other = copy.copy(request)
    other._all_token_ids = other.all_token_ids = tokens
    other.cache_salt = salt
    other.block_hashes = list(known)
    other.block_hashes += request._block_hasher(other)
    return Blocks(other, other.block_hashes)


@dataclass(frozen=True)
class Expected:
    """Pages that the workers were told to send."""

    key: Key
    blocks: Blocks
    pages: tuple[tuple[int, int], ...]  # (from, to)
    until: float


class Events:
    """What there is to tell. Used by the scheduler's own thread."""

    def __init__(self, block: int, ranks: int, kind: str | None) -> None:
        self._block, self._ranks, self._kind = block, ranks, kind
        self._queue: list[Any] = []
        self._pages: OrderedDict[End, dict[tuple[int, ...], list[bytes]]] = OrderedDict()  # announced: by the tokens behind that block
        self._holds: Counter[bytes] = Counter()  # pages of which a block is
        self._expected: dict[int, Expected] = {}
        self._heard: dict[int, list[int]] = {}

    @property
    def waiting(self) -> bool:
        """Whether there is something to come, so that the engine's loop must go on."""
        now = time.monotonic()
        return bool(self._queue) or any(now < e.until for e in self._expected.values())

    def expect(self, number: int, key: Key, blocks: Blocks, pages: Sequence[tuple[int, int]]) -> None:
        """Pages are sent, and the workers report by this number how many of them exist as cores."""
        self._expected[number] = Expected(key, blocks, tuple(pages), time.monotonic() + PATIENCE)

    def kept(self, number: int, counts: list[int]) -> None:
        """How many of these pages, from the first, exist as cores now, by some of the ranks."""
        if number not in self._expected:
            return
        heard = self._heard.setdefault(number, [])
        heard += counts
        if len(heard) < self._ranks:
            return
        e = self._expected.pop(number)
        for first, last in e.pages[: min(self._heard.pop(number))]:
            self._stored(e.key, e.blocks, first, last)

    def found(self, key: Key, blocks: Blocks, asked: int, ends: Sequence[int]) -> None:
        """A lookup of the first `asked` tokens has found pages with these ends, and nothing behind them."""
        first = 0
        for last in ends:
            self._stored(key, blocks, first, last)
            first = last
        for n in range(first // self._block + 1, asked // self._block + 1):
            at = key, blocks.hashes[n - 1]
            for rest in list(self._pages.get(at, ())):
                end = n * self._block + len(rest)
                if first < end <= asked and tuple(blocks.tokens[n * self._block : end]) == rest:
                    self._gone(at, rest)

    def cleared(self, queue: Sequence[Any]) -> None:
        """vLLM is about to say that everything is gone, where it does: what is found again after that is announced again."""
        if any(isinstance(e, AllBlocksCleared) for e in queue):
            self._pages.clear()
            self._holds.clear()

    def take(self) -> list[Any]:
        out, self._queue = self._queue, []
        return out

    def _stored(self, key: Key, blocks: Blocks, first: int, last: int) -> None:
        """The blocks that end in a page; a block that begins in the page before is whole with this one."""
        lo, hi = first // self._block, last // self._block
        if lo == hi:
            return
        at, rest = (key, blocks.hashes[hi - 1]), tuple(blocks.tokens[hi * self._block : last])
        same = self._pages.setdefault(at, {})
        self._pages.move_to_end(at)
        if rest in same:
            return
        same[rest] = hashes = list(blocks.hashes[lo:hi])
        extra = [generate_block_hash_extra_keys(blocks.request, i * self._block, (i + 1) * self._block, 0)[0] for i in range(lo, hi)]
        if not all(self._holds[h] for h in hashes):
            self._queue.append(
                BlockStored(
                    block_hashes=[maybe_convert_block_hash(h) for h in hashes],
                    parent_block_hash=maybe_convert_block_hash(blocks.hashes[lo - 1]) if lo else None,
                    token_ids=list(blocks.tokens[lo * self._block : hi * self._block]),
                    block_size=self._block,
                    lora_id=None,  # requests with an adapter are not semproxy's
                    medium=MEDIUM,
                    lora_name=None,
                    extra_keys=to_event_extra_keys(extra),
                    group_idx=0,
                    kv_cache_spec_kind=self._kind,
                )
            )
        self._holds.update(hashes)
        while len(self._pages) > PAGES:
            oldest, of = next(iter(self._pages.items()))
            for behind in list(of):
                self._gone(oldest, behind)

    def _gone(self, at: End, rest: tuple[int, ...]) -> None:
        hashes = self._pages[at].pop(rest)
        if not self._pages[at]:
            del self._pages[at]
        self._holds.subtract(hashes)
        gone = [h for h in hashes if self._holds[h] <= 0]
        for h in gone:
            del self._holds[h]
        if gone:
            self._queue.append(BlockRemoved(block_hashes=[maybe_convert_block_hash(h) for h in gone], medium=MEDIUM, group_idx=0))
