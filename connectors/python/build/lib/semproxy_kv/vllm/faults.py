"""What went wrong, counted. A fault never stops an engine: a request is computed in full, or its KV is not kept."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from ..errors import SemproxyError
from . import stats

log = logging.getLogger("vllm.semproxy")  # below vLLM's own logger: with its time, level and place

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def count(what: str, request: str, e: BaseException) -> None:
    """Count a fault by its code and log it. what is what did not happen to the request."""
    code = e.code if isinstance(e, SemproxyError) else "internal"
    with _lock:
        _counts[code] += 1
    stats.add("fault", code)
    if code == "internal":
        log.error("%s: %s", request, what, exc_info=e)
    else:
        log.warning("%s: %s: %s", request, what, e)


def faults() -> dict[str, int]:
    """How often something went wrong in this process, by code. vLLM's /metrics has it of all processes."""
    with _lock:
        return dict(_counts)
