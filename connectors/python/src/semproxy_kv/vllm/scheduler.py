"""The scheduler's side: which requests use cores, and which are saved when they have finished.

A request goes this way. It is new: what is stored of its prompt is looked up in a thread, and the scheduler is told to ask
again. Cores were found: placeholders take the place of the first P tokens, the scheduler looks for blocks that hold these
cores already, and the workers load the rest while the request waits. A load failed: the prompt is put back, and computed.
It finished: the blocks stay until the workers have copied them.

A request that runs on its full KV may change over (live.py): after some tokens of its answer the prompt's pages are sent, and the
workers keep the cores that come back. When all of them have them, the scheduler frees the request's blocks and resumes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from dataclasses import replace as changed
from itertools import count
from math import lcm
from typing import Any

from vllm.v1.request import RequestStatus

from ..client.options import TENANT
from ..errors import SemproxyError
from ..wire import Cores
from . import faults, stats
from .check import Shape
from .events import Blocks, Events, blocks_of
from .importance import Reading, Readings
from .metadata import Enter, Hold, Leave, Load, Repeat, Save, StepMeta, WorkerMeta, headers, ranges
from .prefix import cuts
from .queries import Ask, wanted
from .settings import BLOCK, Settings
from .store import GONE, Store, store_of, traceparent
from .substitute import Original, Plan, bound, digest_of, refusal, replace, restore, substitute, unfit
from .threads import pool

RETRY = 1.0  # seconds between attempts to load cores of a request whose placeholders the workers know already

Found = tuple[Plan, list[Cores]] | None


@dataclass
class Live:
    """How far a request is that may change over while it runs."""

    why_not: str = ""
    pages: list[tuple[int, int]] = field(default_factory=list)  # that were sent
    slots: int | None = None  # of their cores, once they are there and until it changes over
    at: int | None = None  # tokens of its answer at which it has first changed over
    tail: int = 0  # tokens that are kept for it until it is resumed
    moves: int = 0  # by how many positions these move
    heard: list[int] = field(default_factory=list)  # slots, of each rank
    folded: list[int] = field(default_factory=list)  # of its answer that the workers take for its prompt


@dataclass
class Tracked:
    """A request that semproxy may have to do with."""

    request: Any
    tenant: str
    sequence: str
    traceparent: str
    deadline: float  # of the lookup
    protect: tuple[tuple[int, int], ...] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    lookup: Future[Found] | None = None
    plan: Plan | None = None
    original: Original | None = None
    pinned: list[Cores] = field(default_factory=list)  # so that a preempted request finds them again
    scheduled: bool = False  # the workers know it
    retry_at: float = 0.0
    blocks: list[int] = field(default_factory=list)  # as the workers know them
    queries: list[int] = field(default_factory=list)  # positions whose queries are still to come
    why: str = "nothing of its prompt is stored"  # it is computed exactly
    live: Live = field(default_factory=Live)
    said: Blocks | None = None  # of its prompt, as events name them
    reading: Reading | None = None  # it is the engine's own, and repeats a text

    @property
    def key(self) -> tuple[str, str]:
        """Who finds its pages."""
        return self.tenant, json.dumps(self.headers, sort_keys=True) if self.headers else ""

    def outcome(self) -> dict[str, Any]:
        """What became of its prompt, for whoever asks: the answer's kv_transfer_params carry it."""
        if self.plan is None:
            return {"outcome": "exact", "why": self.why}
        used = {"tokens": self.plan.tokens, "slots": self.plan.slots}
        if self.live.at is not None:
            return {"outcome": "changed_over", **used, "at": self.live.at}
        return {"outcome": "cores", **used}


class SchedulerSide:
    def __init__(self, settings: Settings, shape: Shape, layout: str) -> None:
        self.settings, self.shape, self.layout = settings, shape, layout
        self.store: Store = store_of(settings)
        self.usage: Callable[[], float] = lambda: 1.0  # share of the KV space that is in use
        self.live = False  # the scheduler can change requests over
        self.events: Events | None = None  # where vLLM publishes such
        self.readings: Readings | None = None  # where prompts are read again
        self.separators: frozenset[int] = frozenset()  # tokens that stand between messages
        self._pool = pool(4, "semproxy lookup")
        self._tracked: dict[str, Tracked] = {}
        self._due: list[Tracked] = []
        self._meta = StepMeta()
        self._numbers = count(1)

    def on_new_request(self, request: Any) -> None:
        params = request.kv_transfer_params or {}
        if self.settings.tenants and not params.get("tenant"):
            return  # it did not come through the proxy, so it is nobody's: it is computed without semproxy
        tenant = params.get("tenant") or self.settings.tenant
        if params.get("compress") is False or unfit(request):
            return
        allowed = not self.settings.tenants or tenant in (self.settings.tenant, *self.settings.tenants)
        if not isinstance(tenant, str) or not TENANT.match(tenant) or not allowed:
            faults.count("it is computed without semproxy", request.request_id, SemproxyError("policy.denied", "the tenant is not allowed"))
            return
        try:
            protect, said = ranges(params.get("protect")), headers(params.get("headers"))
        except SemproxyError as e:
            faults.count("it is computed without semproxy", request.request_id, e)
            return
        t = Tracked(
            request=request,
            protect=protect,
            headers=said,
            tenant=tenant,
            sequence=str(params.get("object") or request.request_id),
            traceparent=str(params.get("traceparent") or ""),
            deadline=time.monotonic() + self.settings.lookup_timeout,
        )
        self._tracked[request.request_id] = t
        n = request.num_prompt_tokens
        if self.settings.save:
            t.queries = wanted(n)
        t.live.why_not = self._never_live(request)
        t.why = refusal(request) or t.why
        if self.settings.load and n > self.settings.min_tokens and not refusal(request):
            ids = list(request.prompt_token_ids[: n - 1])  # one token is computed, for the first answer
            t.lookup = self._pool.submit(self._find, t, ids, n, request.cache_salt)
            if self.events:
                t.said = blocks_of(request, list(request.prompt_token_ids), request.cache_salt, request.block_hashes)

    def _never_live(self, request: Any) -> str:
        if not (self.live and self.settings.live and self.settings.save):
            return "live compression is off"
        if request.num_prompt_tokens < self.settings.live_tokens:
            return f"its prompt has fewer than {self.settings.live_tokens} tokens"
        if request.max_tokens < self.settings.live_after + self.settings.live_remaining:
            return "its answer may not be long"
        return refusal(request) or bound(request)

    def _find(self, t: Tracked, ids: list[int], total: int, salt: str | None) -> Found:
        traceparent.set(t.traceparent)
        try:
            return self.store.find(t.tenant, ids, total, salt, self.shape, self.layout, t.sequence, t.headers)
        except SemproxyError as e:
            self.store.failed(t.tenant, e)
            raise

    def get_num_new_matched_tokens(self, request: Any, computed: int) -> tuple[int | None, bool]:
        t = self._tracked.get(request.request_id)
        if t is None:
            return 0, False
        if t.plan is None:
            return self._decide(t, computed)
        if t.live.at is not None:
            if request.status == RequestStatus.WAITING:
                self._fold(t)
            return max(t.plan.slots + t.live.tail - computed, 0), False
        if time.monotonic() < t.retry_at:
            return None, False
        missing = t.plan.slots - computed
        return (missing, True) if missing > 0 else (0, False)

    def _decide(self, t: Tracked, computed: int) -> tuple[int | None, bool]:
        if t.lookup is None:
            return 0, False
        left = t.request.num_tokens - computed
        if left <= 2 * self.shape.block and self.usage() < self.settings.prefer_full:
            t.lookup.cancel()
            t.lookup, t.why = None, "the engine has its full KV still, and room for it"
            return 0, False
        if not t.lookup.done() and time.monotonic() < t.deadline:
            return None, False
        lookup, t.lookup = t.lookup, None
        try:
            if not lookup.done():
                lookup.cancel()
                raise SemproxyError("deadline", f"its cores were not found within {self.settings.lookup_timeout} s")
            found = lookup.result()
        except Exception as e:
            faults.count("the prompt is computed in full", t.request.request_id, e)
            t.why = e.code if isinstance(e, SemproxyError) else "internal"
            if t.why == GONE:
                self._found(t, set())
            return 0, False
        if found is None:
            self._found(t, set())
            return 0, False
        t.plan, t.pinned = found
        self._found(t, {page.token_first + page.tokens for page in t.pinned})
        t.original = substitute(t.request, t.plan, self.settings.placeholder)
        return None, False  # asked again when blocks with the new hashes have been looked for

    def read(self, room: int) -> Any:
        """A request that repeats some stored text, for an engine that has no other and `room` slots; None: there is nothing to read."""
        if self.readings is None or (request := self.readings.next(room)) is None:
            return None
        reading = self.readings.now
        assert reading is not None
        self._tracked[request.request_id] = Tracked(
            request, reading.save.tenant, reading.save.sequence, reading.save.traceparent, 0.0, reading=reading,
            queries=[reading.end + at for at in wanted(request.num_prompt_tokens - reading.end)],
            live=Live("it reads"),
        )  # fmt: skip
        return request

    def update_state_after_alloc(self, request: Any, block_ids: list[int], external: int) -> None:
        if external <= 0:
            return
        t = self._tracked[request.request_id]
        assert t.plan is not None
        end = t.plan.slots + t.live.tail
        blocks = tuple(block_ids[: -(-end // self.shape.block)])
        skip = end - external
        if t.live.at is not None:
            self._meta.enters.append(Enter(request.request_id, t.plan.slots, t.live.moves, t.live.tail, blocks, skip))
            return
        self._meta.loads.append(Load(request.request_id, t.tenant, t.plan.objects, t.plan.slots, t.plan.shift, blocks, skip))

    # A request that runs

    def due(self, room: Callable[[Any, int], bool]) -> list[Any]:
        """Requests that change over before the next step. room says whether a request can have so many slots in place of its own."""
        out, waiting = [], []
        for t in self._due:
            r = t.request
            if r.is_finished() or t.live.slots is None:
                continue
            shift = t.plan.shift if t.plan else 0
            if r.max_tokens - r.num_output_tokens < self.settings.live_remaining:
                t.live.why_not = "what is left of its answer does not pay"
            elif (
                r.status == RequestStatus.RUNNING
                and not r.is_prefill_chunk  # drafts for the next step are dropped with the blocks
                and r.num_output_tokens
                and room(r, t.live.slots + r.num_tokens - shift + self.shape.block - t.live.pages[-1][1])
            ):
                out.append(r)
            else:
                waiting.append(t)
        self._due = waiting
        return out

    def leave(self, request: Any, block_ids: list[int]) -> None:
        """Its blocks are about to be freed: the workers keep what is behind the tokens that have cores."""
        t = self._tracked[request.request_id]
        first, last = t.live.pages[-1][1] + (t.plan.shift if t.plan else 0), request.num_computed_tokens
        t.live.tail = last - first
        if t.live.at is None:
            t.live.at = request.num_output_tokens
        self._meta.leaves.append(Leave(request.request_id, first, last, tuple(block_ids)))

    def exchange(self, request: Any) -> None:
        """Placeholders take the place of its first tokens."""
        t = self._tracked[request.request_id]
        assert t.live.slots is not None
        tokens, before = t.live.pages[-1][1], t.plan.shift if t.plan else 0
        t.original = t.original or Original(list(request.prompt_token_ids), request.cache_salt)
        names = ((request.request_id, str(tokens)),)  # its own cores, and nobody else's
        t.plan = Plan(tokens, t.live.slots, names, digest_of(t.tenant, names, t.original.salt))
        t.live.slots, t.live.heard, t.live.moves = None, [], t.plan.shift - before
        self._fold(t)
        replace(request, t.original.prompt + t.live.folded, t.plan, self.settings.placeholder)
        faults.log.info("%s: changes over: its first %d tokens are in %d slots", request.request_id, tokens, t.plan.slots)

    def _fold(self, t: Tracked) -> None:
        """What was answered so far becomes part of the prompt that the workers are given, as in vLLM's streamed sessions."""
        r = t.request
        if not r.num_output_tokens:
            return
        n = r.num_output_tokens
        t.live.folded += list(r.output_token_ids)
        r._output_token_ids.clear()
        r.prompt_token_ids = list(r.all_token_ids)
        r.num_prompt_tokens = len(r.prompt_token_ids)
        r.max_tokens -= n
        r.sampling_params = r.sampling_params.clone()
        r.sampling_params.max_tokens = r.max_tokens
        r.sampling_params.min_tokens = max(r.sampling_params.min_tokens - n, 0)

    def build_connector_meta(self, output: Any) -> StepMeta:
        for new in output.scheduled_new_reqs:
            if t := self._tracked.get(new.req_id):
                t.scheduled = True
                t.blocks = list(new.block_ids[0])
                t.live.tail = 0  # the workers have put it where it belongs
                self._reading(t, True)
                self._passing(t, new.num_computed_tokens, output)
                self._repeating(t, new.num_computed_tokens, output)
        cached = output.scheduled_cached_reqs
        for i, name in enumerate(cached.req_ids):
            if t := self._tracked.get(name):
                ids = list(cached.new_block_ids[i][0]) if cached.new_block_ids[i] else []
                if name in cached.resumed_req_ids:
                    t.blocks = []
                t.blocks.extend(ids)
                t.live.tail = 0
                self._reading(t, name in cached.resumed_req_ids)
                self._passing(t, cached.num_computed_tokens[i], output)
                self._repeating(t, cached.num_computed_tokens[i], output)
                self._send_live(t, cached.num_computed_tokens[i] + output.num_scheduled_tokens[name])
        meta, self._meta = self._meta, StepMeta()
        meta.preempted = tuple(output.preempted_req_ids or ())
        return meta

    def _reading(self, t: Tracked, anew: bool) -> None:
        """Tell the workers of a request on cores that passes in this step; anew: its blocks are others."""
        if not self.shape.units or t.plan is None:
            return
        if anew:
            blocks = tuple(t.blocks[: t.plan.slots // self.shape.block])
            self._meta.holds.append(Hold(t.request.request_id, blocks, t.plan.lengths))
        self._meta.reads[t.request.request_id] = t.blocks[0]

    def _passing(self, t: Tracked, computed: int, output: Any) -> None:
        """Ask for the queries of a prompt that are computed in this step."""
        if not t.queries:
            return
        shift = t.plan.shift if t.plan else 0
        end, block = computed + output.num_scheduled_tokens[t.request.request_id], self.shape.block
        now = [p for p in t.queries if computed <= p + shift < end]
        t.queries = [p for p in t.queries if p + shift >= end]
        if now:
            slots = tuple(t.blocks[(p + shift) // block] * block + (p + shift) % block for p in now)
            self._meta.asks.append(Ask(t.request.request_id, tuple(now), slots, shift))

    def _repeating(self, t: Tracked, computed: int, output: Any) -> None:
        """Let attention be watched of tokens that repeat a text and are computed in this step."""
        if (reading := t.reading) is None:
            return
        text, block = reading.end, self.shape.block
        begin, end = max(computed, text), computed + output.num_scheduled_tokens[t.request.request_id]
        if begin < end:
            slot = t.blocks[begin // block] * block + begin % block
            part = Repeat(reading.name, text, *reading.way, begin - text, end - text, slot, tuple(t.blocks))
            self._meta.repeats.append(part)

    def _send_live(self, t: Tracked, computed: int) -> None:
        """Send the prompt of a request that has answered for a while, whose first `computed` slots are filled after this step, but for
        what it has stored cores of; or all that is behind its cores, when that has grown."""
        r, live = t.request, t.live
        first, slots = (t.plan.tokens, t.plan.slots) if t.plan else (0, 0)
        if live.why_not or (live.pages and live.pages[-1][1] > first) or computed < r.num_prompt_tokens:
            return
        fresh = live.at is None and r.num_prompt_tokens - slots >= self.settings.live_tokens
        if fresh and r.num_output_tokens < self.settings.live_after:
            return
        if not fresh and not 0 < self.settings.live_every <= computed - slots:
            return
        prompt = t.original.prompt if t.original else list(r.prompt_token_ids)
        if fresh:
            ids, pages = prompt, self._cuts(prompt, first, len(prompt), len(prompt) - 1)
        else:
            ids = prompt + live.folded + list(r.output_token_ids)
            end = min(computed - slots + first, len(ids))  # a token that is on its way has no number yet
            pages = self._cuts(ids, first, end, end)
        if pages:
            live.pages = live.pages + pages
            self._meta.saves.append(self._saving(t, ids, pages, slots - first, t.blocks, live=True))
        elif fresh:
            live.why_not = "no page of its prompt is long enough"

    def _saving(self, t: Tracked, ids: list[int], pages: list[tuple[int, int]], shift: int, blocks: list[int], live: bool = False) -> Save:
        save = Save(
            request=t.request.request_id,
            tenant=t.tenant,
            sequence=t.sequence,
            ids=tuple(ids[: pages[-1][1]]) if pages else (),
            pages=tuple(pages),
            shift=shift,
            blocks=tuple(blocks),
            live=live,
            traceparent=t.traceparent,
            protect=t.protect,
            headers=t.key[1],
        )
        return changed(save, number=self._expect(t, save)) if pages else save

    def _expect(self, t: Tracked, save: Save) -> int:
        """The number by which it is to be heard how many of these pages are stored; 0: nobody asks."""
        if not (self.events or self.readings):
            return 0
        known, salt = t.said.hashes if t.said else (), t.original.salt if t.original else t.request.cache_salt
        number = next(self._numbers)
        if self.events:
            self.events.expect(number, t.key, blocks_of(t.request, list(save.ids), salt, known), save.pages)
        if self.readings:
            self.readings.expect(number, t.request, salt, save)
        return number

    def _found(self, t: Tracked, ends: set[int]) -> None:
        """Say what a lookup has found of a prompt: pages that end there, and nothing else."""
        if self.events and t.said:
            self.events.found(t.key, t.said, len(t.said.tokens) - 1, sorted(ends))

    def update_connector_output(self, output: Any) -> None:
        for request_id in output.failed_recving or ():
            t = self._tracked.get(request_id)
            if t is None or t.plan is None or t.original is None:
                continue
            if t.scheduled:  # the workers know its placeholders: they must not be computed as if they were text
                t.retry_at = time.monotonic() + RETRY
                continue
            restore(t.request, t.original)
            t.plan, t.original, t.pinned, t.why = None, None, [], "its cores could not be loaded"
        if isinstance(output.kv_connector_worker_meta, WorkerMeta):
            self._hear(output.kv_connector_worker_meta)

    def _hear(self, news: WorkerMeta) -> None:
        for number, counts in news.kept.items():
            if self.events:
                self.events.kept(number, counts)
            if self.readings:
                self.readings.kept(number, counts)
        for name in news.gone:
            if t := self._tracked.get(name):
                self._found(t, set())
        for name, code in news.failed.items():
            if t := self._tracked.get(name):
                t.live.why_not = code
        for name, slots in news.ready.items():
            t = self._tracked.get(name)
            if t is None or t.live.why_not:
                continue
            t.live.heard += slots
            if len(t.live.heard) < self.shape.ranks:
                continue
            if len(set(t.live.heard)) > 1:
                t.live.why_not = "ranks have cores in different numbers"
                continue
            t.live.slots = t.live.heard[0]
            self._due.append(t)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Whether the blocks must stay until the workers have copied them, and what became of the request."""
        t = self._tracked.pop(request.request_id, None)
        if t is None:
            return False, None
        if t.reading:
            return self._read(t, block_ids), None
        self._due = [other for other in self._due if other is not t]
        if t.lookup:
            t.lookup.cancel()
        outcome = t.outcome()
        stats.add("request", outcome["outcome"])
        if t.plan:
            stats.add("tokens", n=t.plan.tokens)
            stats.add("slots", n=t.plan.slots)
        if t.live.why_not and t.plan is None:
            outcome["not_live"] = t.live.why_not
        ids = (t.original.prompt if t.original else list(request.prompt_token_ids)) + t.live.folded + list(request.output_token_ids)
        pages = self._rest(t, request, ids)
        if not pages and not t.live.pages:
            return False, {"semproxy": outcome}
        self._meta.saves.append(self._saving(t, ids, pages, t.plan.shift if t.plan else 0, block_ids))
        return True, {"semproxy": outcome}

    def _read(self, t: Tracked, block_ids: list[int]) -> bool:
        """A request that repeats a text has ended: when all of it has been read, its pages are sent again."""
        assert self.readings is not None
        reading = self.readings.ended(t.request, t.request.status in (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED))
        if reading is None:
            return False
        again = changed(
            reading.save, request=t.request.request_id, shift=0, blocks=tuple(block_ids), live=False, number=0,
            read=(reading.name, tuple(reading.done)),
        )  # fmt: skip
        self._meta.saves.append(again)
        stats.add("read")
        return True

    def _rest(self, t: Tracked, request: Any, ids: list[int]) -> list[tuple[int, int]]:
        """The pages of a finished request that are still to be sent. ids are its tokens."""
        if not self.settings.save or request.status not in (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED):
            return []
        prompt = len(t.original.prompt) if t.original else request.num_prompt_tokens
        first, shift = (t.plan.tokens, t.plan.shift) if t.plan else (0, 0)
        if t.live.pages:
            first = t.live.pages[-1][1]
        slots = min(request.num_computed_tokens, request.num_tokens - 1)  # the last token was not computed, or ahead of time
        return self._cuts(ids, first, prompt, slots - shift)

    def _cuts(self, ids: list[int], first: int, prompt: int, end: int) -> list[tuple[int, int]]:
        block = lcm(BLOCK, self.shape.block) if self.shape.units else BLOCK
        return cuts(ids, first, prompt, end, self.settings.page_sizes, self.settings.min_tokens, self.separators, block)

    def shutdown(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.store.release()
