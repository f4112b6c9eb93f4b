"""vLLM on a machine without a GPU, with the package of PyPI: its own CPU platform, worker and model runner. The few C++ kernels
that only a CPU build has are done here with torch. Import it before vllm."""

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

import torch

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


def install() -> None:
    """Let vLLM's CPU platform attend with semproxy's backend, and FlexAttention run without a compiler."""
    from torch.nn.attention.flex_attention import flex_attention
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
    from vllm.v1.attention.backends import flex_attention as flex
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    from semproxy_kv.vllm.plugin import BACKEND

    register_backend(AttentionBackendEnum.CPU_ATTN, BACKEND)
    flex.flex_attention_compiled = flex_attention
    RotaryEmbedding.forward_cpu = RotaryEmbedding.forward_native
