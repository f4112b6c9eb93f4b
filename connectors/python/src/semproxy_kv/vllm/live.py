"""vLLM's schedulers, with requests that change over to cores while they run, and with prompts that are read again while there is none.

    vllm serve MODEL --scheduler-cls semproxy_kv.vllm.Scheduler --kv-transfer-config ...

At the beginning of a step a request whose cores are there is preempted by vLLM's own means: its blocks go back, and stay in the
prefix cache as long as nobody needs them. It is at the head of the queue, so that the same step resumes it: cores, and the tokens
behind them as they were computed, take S + n slots in place of P + n. No token is computed again, and no step is lost. A step that
has no room for it leaves it waiting; what was computed of it is kept meanwhile.
"""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler as SyncScheduler
from vllm.v1.request import RequestStatus

from .connector import SemproxyConnector


class Scheduler(SyncScheduler):
    """For --scheduler-cls: the one of the two below that the engine's configuration asks for."""

    def __new__(cls, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        if cls is Scheduler:
            cls = LiveAsyncScheduler if vllm_config.scheduler_config.async_scheduling else LiveScheduler
        return super().__new__(cls)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """As vLLM's, after those that may have changed over."""
        if isinstance(self.connector, SemproxyConnector):
            for request in self.connector.scheduler.due(self._room):
                self._change_over(request)
            if not self.requests and self._idle:
                self._read()
        output = super().schedule(*args, **kwargs)
        if not self.scheduler_config.async_scheduling:
            self._no_padding(output)
        return output

    def has_requests(self) -> bool:
        """As vLLM's. The engine's loop goes on while there is a prompt to read again, too."""
        return super().has_requests() or self._idle

    @property
    def _idle(self) -> bool:
        """Whether there is something to read when there is no request. An engine that is paused may have no memory."""
        readings = self.connector.scheduler.readings if isinstance(self.connector, SemproxyConnector) else None
        return readings is not None and readings.waiting and self.pause_state == PauseState.UNPAUSED

    def _read(self) -> None:
        pool = self.kv_cache_manager.block_pool
        if (request := self.connector.scheduler.read(pool.get_num_free_blocks() * self.block_size)) is not None:
            super().add_request(request)

    def add_request(self, request: Any) -> None:
        """As vLLM's. Who comes goes before what is read again."""
        if isinstance(self.connector, SemproxyConnector) and (readings := self.connector.scheduler.readings) and readings.request:
            self.finish_requests(readings.request.request_id, RequestStatus.FINISHED_ABORTED)
        super().add_request(request)

    def finish_requests(self, request_ids: Any, finished_status: RequestStatus) -> list[Any]:
        """As vLLM's. An engine that ends all of them, to stop, to sleep or for other weights, does not read on."""
        own = None
        if request_ids is None and isinstance(self.connector, SemproxyConnector) and (readings := self.connector.scheduler.readings):
            own = readings.request
            readings.forget()
        ended: list[Any] = super().finish_requests(request_ids, finished_status)
        return [request for request in ended if request is not own]

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        """As vLLM's, without what nobody has asked for."""
        reads = self.connector.scheduler.readings if isinstance(self.connector, SemproxyConnector) else None
        own = reads.request.request_id if reads and reads.request else None
        outputs = super().update_from_output(*args, **kwargs)
        if own is not None:
            for of in outputs.values():
                of.outputs = [o for o in of.outputs if o.request_id != own]
        return outputs

    def _no_padding(self, output: SchedulerOutput) -> None:
        """A request that comes in with one token to compute, as one that changes over does, is filled up by vLLM with drafts of -1, for
        CUDA graphs. Its sampler for CPUs looks for the probability of token -1, and may answer it. So they are taken out again."""
        for name, drafts in list(output.scheduled_spec_decode_tokens.items()):
            if any(token >= 0 for token in drafts):
                continue
            del output.scheduled_spec_decode_tokens[name]
            output.num_scheduled_tokens[name] -= len(drafts)
            output.total_num_scheduled_tokens -= len(drafts)
            request = self.requests[name]
            request.num_computed_tokens -= len(drafts)
            if hasattr(request, "num_in_flight_tokens"):
                request.num_in_flight_tokens -= len(drafts)

    def _room(self, request: Any, slots: int) -> bool:
        """Whether so many slots can be had once the request has given its blocks back."""
        blocks = self.kv_cache_manager.get_blocks(request.request_id).blocks[0]
        own = 0 if self.defer_block_free else sum(block.ref_cnt == 1 for block in blocks)
        return slots <= (own + self.kv_cache_manager.block_pool.get_num_free_blocks()) * self.block_size

    def _change_over(self, request: Any) -> None:
        side = self.connector.scheduler
        blocks = self.kv_cache_manager.get_block_ids(request.request_id)[0]
        side.leave(request, blocks)
        self.running.remove(request)
        self._preempt_request(request, time.monotonic())
        if self.log_stats:
            request.events.pop()  # it is no preemption for want of room
        side.exchange(request)
        request.status = RequestStatus.WAITING  # the workers are given it anew, prompt and blocks


class LiveScheduler(Scheduler):
    pass


class LiveAsyncScheduler(Scheduler, AsyncScheduler):
    pass
