"""The scheduler's side: which requests use cores, and which are saved when they have finished.

A request goes this way. It is new: what is stored of its prompt is looked up in a thread, and the scheduler is told to ask
again. Cores were found: placeholders take the place of the first P tokens, the scheduler looks for blocks that hold these
cores already, and the workers load the rest while the request waits. A load failed: the prompt is put back, and computed.
It finished: the blocks stay until the workers have copied them.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from vllm.v1.request import RequestStatus

from ..client.options import TENANT
from ..errors import SemproxyError
from ..wire import Cores
from . import faults
from .check import Shape
from .metadata import Load, Save, StepMeta, ranges
from .prefix import cuts
from .settings import Settings
from .store import Store, store_of, traceparent
from .substitute import Original, Plan, refusal, restore, substitute, unfit

RETRY = 1.0  # seconds between attempts to load cores of a request whose placeholders the workers know already

Found = tuple[Plan, list[Cores]] | None


@dataclass
class Tracked:
    """A request that semproxy may have to do with."""

    request: Any
    tenant: str
    sequence: str
    traceparent: str
    deadline: float  # of the lookup
    protect: tuple[tuple[int, int], ...] | None = None
    lookup: Future[Found] | None = None
    plan: Plan | None = None
    original: Original | None = None
    pinned: list[Cores] = field(default_factory=list)  # so that a preempted request finds them again
    scheduled: bool = False  # the workers know it
    retry_at: float = 0.0


class SchedulerSide:
    def __init__(self, settings: Settings, shape: Shape, layout: str) -> None:
        self.settings, self.shape, self.layout = settings, shape, layout
        self.store: Store = store_of(settings)
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="semproxy lookup")
        self._tracked: dict[str, Tracked] = {}
        self._meta = StepMeta()

    def on_new_request(self, request: Any) -> None:
        params = request.kv_transfer_params or {}
        tenant = params.get("tenant") or self.settings.tenant
        if params.get("compress") is False or unfit(request):
            return
        allowed = not self.settings.tenants or tenant in (self.settings.tenant, *self.settings.tenants)
        if not isinstance(tenant, str) or not TENANT.match(tenant) or not allowed:
            faults.count("it is computed without semproxy", request.request_id, SemproxyError("policy.denied", "the tenant is not allowed"))
            return
        try:
            protect = ranges(params.get("protect"))
        except SemproxyError as e:
            faults.count("it is computed without semproxy", request.request_id, e)
            return
        t = Tracked(
            request=request,
            protect=protect,
            tenant=tenant,
            sequence=str(params.get("object") or request.request_id),
            traceparent=str(params.get("traceparent") or ""),
            deadline=time.monotonic() + self.settings.lookup_timeout,
        )
        self._tracked[request.request_id] = t
        n = request.num_prompt_tokens
        if self.settings.load and n > self.settings.min_tokens and not refusal(request):
            ids = list(request.prompt_token_ids[: n - 1])  # one token is computed, for the first answer
            t.lookup = self._pool.submit(self._find, t, ids, n, request.cache_salt)

    def _find(self, t: Tracked, ids: list[int], total: int, salt: str | None) -> Found:
        traceparent.set(t.traceparent)
        try:
            return self.store.find(t.tenant, ids, total, salt, self.shape, self.layout)
        except SemproxyError as e:
            self.store.failed(t.tenant, e)
            raise

    def get_num_new_matched_tokens(self, request: Any, computed: int) -> tuple[int | None, bool]:
        t = self._tracked.get(request.request_id)
        if t is None:
            return 0, False
        if t.plan is None:
            return self._decide(t)
        if time.monotonic() < t.retry_at:
            return None, False
        missing = t.plan.slots - computed
        return (missing, True) if missing > 0 else (0, False)

    def _decide(self, t: Tracked) -> tuple[int | None, bool]:
        if t.lookup is None:
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
            return 0, False
        if found is None:
            return 0, False
        t.plan, t.pinned = found
        t.original = substitute(t.request, t.plan, self.settings.placeholder)
        return None, False  # asked again when blocks with the new hashes have been looked for

    def update_state_after_alloc(self, request: Any, block_ids: list[int], external: int) -> None:
        if external <= 0:
            return
        t = self._tracked[request.request_id]
        assert t.plan is not None
        block = self.shape.block
        load = Load(
            request=request.request_id,
            tenant=t.tenant,
            objects=t.plan.objects,
            slots=t.plan.slots,
            shift=t.plan.shift,
            blocks=tuple(block_ids[: t.plan.slots // block]),
            skip=(t.plan.slots - external) // block,
        )
        self._meta.loads.append(load)

    def build_connector_meta(self, output: Any) -> StepMeta:
        for new in output.scheduled_new_reqs:
            if t := self._tracked.get(new.req_id):
                t.scheduled = True
        meta, self._meta = self._meta, StepMeta()
        return meta

    def update_connector_output(self, output: Any) -> None:
        for request_id in output.failed_recving or ():
            t = self._tracked.get(request_id)
            if t is None or t.plan is None or t.original is None:
                continue
            if t.scheduled:  # the workers know its placeholders: they must not be computed as if they were text
                t.retry_at = time.monotonic() + RETRY
                continue
            restore(t.request, t.original)
            t.plan, t.original, t.pinned = None, None, []

    def request_finished(self, request: Any, block_ids: list[int]) -> bool:
        """Whether the blocks must stay until the workers have copied them."""
        t = self._tracked.pop(request.request_id, None)
        if t is None:
            return False
        if t.lookup:
            t.lookup.cancel()
        if not self.settings.save or request.status not in (RequestStatus.FINISHED_STOPPED, RequestStatus.FINISHED_LENGTH_CAPPED):
            return False
        prompt = t.original.prompt if t.original else list(request.prompt_token_ids)
        first, shift = (t.plan.tokens, t.plan.shift) if t.plan else (0, 0)
        slots = min(request.num_computed_tokens, request.num_tokens - 1)  # the last token was not computed, or ahead of time
        pages = cuts(first, len(prompt), slots - shift, self.settings.page_tokens, self.settings.min_tokens)
        if not pages:
            return False
        ids = prompt + list(request.output_token_ids)
        self._meta.saves.append(
            Save(
                request=request.request_id,
                tenant=t.tenant,
                sequence=t.sequence,
                ids=tuple(ids[: pages[-1][1]]),
                pages=tuple(pages),
                shift=shift,
                blocks=tuple(block_ids),
                traceparent=t.traceparent,
                protect=t.protect,
            )
        )
        return True

    def shutdown(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.store.release()
