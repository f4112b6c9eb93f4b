"""The connector that vLLM loads: the scheduler's side in its scheduler, the worker's side in each worker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    KVConnectorWorkerMetadata,
)
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats
from vllm.v1.kv_cache_interface import get_kv_cache_spec_kind

from . import stats
from .check import Shape, changes_over, check_engine, check_layer
from .events import Events
from .importance import readings_of
from .layout import page_layout
from .metadata import StepMeta
from .scheduler import SchedulerSide
from .separators import separators_of
from .settings import Settings
from .worker import WorkerSide


class SemproxyConnector(KVConnectorBase_V1):
    """Raises at the start for an engine that is refused, with the reason; never later."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        settings = Settings.of(self._kv_transfer_config.kv_connector_extra_config)
        shape = check_engine(vllm_config, kv_cache_config, vllm.__version__, settings.model, settings.adaptive)
        layout = page_layout(vllm.__version__, shape)
        self._scheduler: SchedulerSide | None = None
        self._worker: WorkerSide | None = None
        if role == KVConnectorRole.SCHEDULER:
            self._scheduler = SchedulerSide(settings, shape, layout)
            self._scheduler.live = changes_over(vllm_config)
            self._scheduler.events = _events(vllm_config, kv_cache_config, shape)
            self._scheduler.separators = separators_of(vllm_config.model_config)
            if settings.importance:
                self._scheduler.readings = readings_of(vllm_config, shape.ranks)
        else:
            self._worker = WorkerSide(settings, shape, layout, _rank(vllm_config))

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: Any) -> str | None:
        """Units are blocks of one head. Where VLLM_KV_CACHE_LAYOUT or the backend decides otherwise, the start fails."""
        return "HND" if vllm_config.kv_transfer_config.kv_connector_extra_config.get("adaptive") else None

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """In a full graph no Python runs that could tell attention of units."""
        return bool(extra_config.get("adaptive"))

    @property
    def requires_kv_delivery(self) -> bool:
        """A request whose KV is not kept is a later miss, and nothing else."""
        return False

    @property
    def scheduler(self) -> SchedulerSide:
        assert self._scheduler is not None, "this is the worker's connector"
        return self._scheduler

    @property
    def worker(self) -> WorkerSide:
        assert self._worker is not None, "this is the scheduler's connector"
        return self._worker

    # Worker

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        layers = self._vllm_config.compilation_config.static_forward_context
        for name in kv_caches:
            check_layer(name, layers[name], self.worker.shape.folded)
        self.worker.register(kv_caches, self._kv_cache_config.num_blocks, layers)

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        assert isinstance(kv_connector_metadata, StepMeta)
        self.worker.before_step(kv_connector_metadata)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self.worker.start_loads(self._step())

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Requests wait for all of their cores before they are scheduled."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Requests are saved when they have finished."""

    def wait_for_save(self) -> None:
        self.worker.start_saves(self._step().saves)

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        sent, received, failed = self.worker.results(finished_req_ids)
        return KVConnectorTransferResults(finished_sending=sent, finished_recving=received, failed_recving=failed)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        sent, received, _ = self.worker.results(finished_req_ids)
        return sent, received

    def get_block_ids_with_load_errors(self) -> set[int]:
        """None: a load fails as a whole (failed_recving). By blocks, vLLM would compute what is left of the placeholders."""
        return set()

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        return self.worker.news()

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        return stats.take()

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> KVConnectorStats | None:
        return stats.SemproxyStats(data=data or {})

    @classmethod
    def build_prom_metrics(cls, vllm_config: Any, metric_types: Any, labelnames: list[str], per_engine_labelvalues: Any) -> Any:
        return stats.SemproxyProm(vllm_config, metric_types, labelnames, per_engine_labelvalues)

    def _step(self) -> StepMeta:
        meta: KVConnectorMetadata = self._get_connector_metadata()
        assert isinstance(meta, StepMeta)
        return meta

    # Scheduler

    def bind_kv_cache_manager(self, kv_cache_manager: Any) -> None:
        super().bind_kv_cache_manager(kv_cache_manager)
        self.scheduler.usage = lambda: float(kv_cache_manager.usage)
        self._pool = kv_cache_manager.block_pool

    def on_new_request(self, request: Any) -> None:
        self.scheduler.on_new_request(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        return self.scheduler.get_num_new_matched_tokens(request, num_computed_tokens)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        self.scheduler.update_state_after_alloc(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        if self.scheduler.events:
            self.scheduler.events.cleared(self._pool.kv_event_queue)
        return self.scheduler.build_connector_meta(scheduler_output)

    def update_connector_output(self, connector_output: Any) -> None:
        self.scheduler.update_connector_output(connector_output)

    def take_events(self) -> Iterable[Any]:
        events = self.scheduler.events
        return events.take() if events else ()

    def has_pending_push_work(self) -> bool:
        """Events go out with a step of the engine, and pages are answered when it has nothing to do."""
        return bool(self._scheduler and self._scheduler.events and self._scheduler.events.waiting)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        return self.scheduler.request_finished(request, block_ids)

    def reset_cache(self) -> bool:
        """Nothing of a prompt is kept in the engine but what the prefix cache holds."""
        return True

    def shutdown(self) -> None:
        if self._scheduler:
            self._scheduler.shutdown()
        if self._worker:
            self._worker.shutdown()
        self._scheduler = self._worker = None


def _events(config: Any, kv_cache: Any, shape: Shape) -> Events | None:
    """Where vLLM's kv_events_config is on."""
    if config.kv_events_config is None or not config.kv_events_config.enable_kv_cache_events:
        return None
    spec = kv_cache.kv_cache_groups[0].kv_cache_spec
    return Events(shape.block, shape.ranks, str(get_kv_cache_spec_kind(spec).value))


def _rank(config: Any) -> int:
    """Of this worker among those that share the heads."""
    from vllm.distributed.parallel_state import get_tensor_model_parallel_rank, model_parallel_is_initialized

    return int(get_tensor_model_parallel_rank()) if model_parallel_is_initialized() else int(config.parallel_config.rank)
