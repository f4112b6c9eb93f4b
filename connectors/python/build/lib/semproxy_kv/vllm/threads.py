"""Threads beside the engine's own.

OpenMP's runtime counts all threads of a process. Once there are more than processors, those that wait at the end of a parallel region
sleep at once instead of looking again for a moment, and a step of the engine, which is hundreds of short regions, takes half as long again
for the rest of its life. A second thread that runs torch has a team of its own, so one is enough: here it runs alone.
"""

from __future__ import annotations

import contextlib
import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

RUNTIMES = ("libgomp", "libiomp", "libomp")


def pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Threads whose operations in torch have no team."""
    return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=alone)


def alone() -> None:
    """The calling thread has no team from now on; others keep theirs."""
    torch.get_num_threads()  # torch gives each thread its number at its first use, and would do it after this
    for path in _runtimes():
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(path).omp_set_num_threads(1)


def _runtimes() -> set[str]:
    """The OpenMP runtimes that are loaded."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return set()
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count("/")}
    return {path for path in paths if path.rsplit("/", 1)[-1].startswith(RUNTIMES)}
