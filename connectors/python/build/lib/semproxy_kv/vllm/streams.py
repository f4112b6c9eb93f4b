"""The order of copies on a device: threads copy out what the engine's own stream has written before."""

from __future__ import annotations

import threading
from typing import Any

import torch


class Fence:
    """What was enqueued on the device before, so that a thread's copies come after it. Nothing on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event() if device.type == "cuda" else None
        if self.event:
            self.event.record(torch.cuda.current_stream(device))


class Stream:
    """A stream of this thread's own, behind a fence."""

    def __init__(self, kept: threading.local, device: torch.device, fence: Fence) -> None:
        self._kept, self._device, self._fence = kept, device, fence

    def __enter__(self) -> None:
        if self._fence.event is None:
            return
        if not hasattr(self._kept, "stream"):
            self._kept.stream = torch.cuda.Stream(self._device)
        self._kept.stream.wait_event(self._fence.event)
        self._context = torch.cuda.stream(self._kept.stream)
        self._context.__enter__()

    def __exit__(self, *e: Any) -> None:
        if self._fence.event is not None:
            self._context.__exit__(*e)
            self._kept.stream.synchronize()
