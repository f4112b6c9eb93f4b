"""What the connector did, for vLLM's log and its /metrics."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats

# name of what is counted -> (metric, its label or "", documentation)
COUNTERS = {
    "request": (
        "vllm:semproxy_requests_total",
        "outcome",
        "Requests that have ended, by what became of their prompt: exact, cores, changed_over.",
    ),
    "fault": ("vllm:semproxy_faults_total", "code", "What went wrong without stopping a request, by code."),
    "tokens": ("vllm:semproxy_replaced_tokens_total", "", "Tokens of prompts in whose place cores were attended to."),
    "slots": ("vllm:semproxy_core_slots_total", "", "Slots of KV cache that these cores took."),
    "read": ("vllm:semproxy_read_again_total", "", "Stored texts that were read again to learn which tokens are needed."),
    "pages": ("vllm:semproxy_pages_total", "", "Pages of KV that semproxy has answered."),
}

_lock = threading.Lock()
_since: Counter[str] = Counter()


def add(name: str, label: str = "", n: int = 1) -> None:
    """Count n of a name of COUNTERS."""
    with _lock:
        _since[f"{name}:{label}"] += n


def take() -> SemproxyStats | None:
    """What was counted in this process since the last call."""
    global _since
    with _lock:
        counted, _since = _since, Counter()
    return SemproxyStats(data=dict(counted)) if counted else None


class SemproxyStats(KVConnectorStats):
    """data: "name:label" -> count."""

    def reset(self) -> None:
        self.data: dict[str, Any] = {}

    def aggregate(self, other: KVConnectorStats) -> SemproxyStats:
        self.data = dict(Counter(self.data) + Counter(other.data))
        return self

    def reduce(self) -> dict[str, int | float]:
        return {("semproxy " + name.replace(":", " ")).strip(): n for name, n in sorted(self.data.items())}

    def is_empty(self) -> bool:
        return not self.data


class SemproxyProm(KVConnectorPromMetrics):
    def __init__(self, config: Any, metric_types: Any, labelnames: list[str], engines: dict[int, list[object]]) -> None:
        super().__init__(config, metric_types, labelnames, engines)
        self._counters = {
            name: self._counter_cls(name=metric, documentation=text, labelnames=[*labelnames, *([label] if label else [])])
            for name, (metric, label, text) in COUNTERS.items()
        }

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        for key, n in transfer_stats_data.items():
            name, _, label = key.partition(":")
            if name in COUNTERS:
                labels = [*self.per_engine_labelvalues[engine_idx], *([label] if COUNTERS[name][1] else [])]
                self._counters[name].labels(*labels).inc(n)
