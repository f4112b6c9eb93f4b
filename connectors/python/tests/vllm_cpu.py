"""vLLM on a machine without a GPU: its own CPU platform, worker and model runner, with a package for CPUs, or with PyPI's for GPUs,
whose lack of a few C++ kernels is made up for here with torch, so that schedulers can be tested. Import it before vllm."""

from __future__ import annotations

import os

os.environ.update(
    {
        "VLLM_TARGET_DEVICE": "cpu",  # vLLM's own switch: its CPU platform on a wheel that was built for something else
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # the other one needs Triton
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_CI_ENV": "1",  # no warming up
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }
    | os.environ
)

import contextlib
from importlib import import_module

import torch

# The kernels of a package for CPUs, where it is one: those that vLLM would take, for others may end the process (SIGILL).
_kernels = "_C_AVX2"
if torch.cpu._is_avx512_supported():
    _kernels = "_C" if torch.cpu._is_avx512_bf16_supported() else "_C_AVX512"
with contextlib.suppress(ImportError, OSError, RuntimeError):
    import_module(f"vllm.{_kernels}")

_lib = torch.library.Library("_C", "FRAGMENT")


def _define(schema: str, function: object) -> None:
    name = schema.split("(")[0]
    if not hasattr(torch.ops._C, name):
        _lib.define(schema)
        _lib.impl(name, function, "CompositeExplicitAutograd")


def _slot_mapping(starts: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, out: torch.Tensor, block: int) -> None:
    counts = (starts[1:] - starts[:-1]).long()
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    at = positions[: len(rows)].long()
    out.fill_(-1)
    out[: len(rows)] = table[rows, at // block].long() * block + at % block


_define("init_cpu_memory_env(int[] nodes) -> ()", lambda nodes: None)
_define("compute_slot_mapping_kernel_impl(Tensor starts, Tensor positions, Tensor table, Tensor(a!) out, int block) -> ()", _slot_mapping)
_define("greedy_argmax(Tensor logits) -> Tensor", lambda logits: logits.argmax(-1).view(-1))
