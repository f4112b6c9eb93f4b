"""What vLLM's attention backends are told of a batch in which every KV head of a layer is a request of its own (units.py).

Each backend reads metadata of its own. What is not named here stays as the engine has filled it in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import UnsupportedModel


@dataclass(frozen=True)
class Batch:
    """Sequences that attend over one KV head: those of a layer in a step."""

    tokens: int  # whose queries there are, of all sequences
    starts: torch.Tensor  # I32 [sequences + 1]: of their queries
    table: torch.Tensor  # I32 [sequences, units]
    lengths: torch.Tensor  # I32 [sequences]
    longest: int  # of these

    def of(self, metadata: Any, **more: Any) -> Any:
        """The engine's metadata, of this batch."""
        return replace(
            metadata, num_actual_tokens=self.tokens, query_start_loc=self.starts, max_seq_len=self.longest, seq_lens=self.lengths,
            block_table=self.table, **more,
        )  # fmt: skip


Tell = Callable[[Any, Any, Batch, torch.dtype], Any]
"""A layer, the engine's metadata, a batch, the type of its queries: metadata of the batch."""


def _cpu(layer: Any, metadata: Any, batch: Batch, dtype: torch.dtype) -> Any:
    from vllm import _custom_ops as ops
    from vllm import envs

    impl = layer.impl
    plan = ops.cpu_attn_get_scheduler_metadata(
        num_reqs=len(batch.lengths), num_heads=impl.num_queries_per_kv, num_kv_heads=1, head_dim=impl.head_size, seq_lens=batch.lengths,
        dtype=dtype, query_start_loc=batch.starts, causal=metadata.causal, sliding_window_size=impl.sliding_window,
        isa=layer.isa, enable_kv_split=envs.VLLM_CPU_ATTN_SPLIT_KV, kv_cache_dtype=impl.kv_cache_dtype,
    )  # fmt: skip
    return batch.of(metadata, scheduler_metadata=plan)


def _triton(layer: Any, metadata: Any, batch: Batch, dtype: torch.dtype) -> Any:
    """Where few sequences of one token leave the GPU idle the kernel splits them, into buffers of [tokens, heads, segments]: as many
    numbers for `heads` times as many tokens of one KV head's queries, and as many programs."""
    impl = layer.impl
    rows = {
        name: of.view(-1, impl.num_queries_per_kv, *of.shape[2:])
        for name in ("softmax_segm_output", "softmax_segm_max", "softmax_segm_expsum")
        if (of := getattr(metadata, name)) is not None
    }
    return batch.of(metadata, seq_threshold_3D=metadata.seq_threshold_3D * impl.num_kv_heads, **rows)


def _flash(layer: Any, metadata: Any, batch: Batch, dtype: torch.dtype) -> Any:
    """Without a plan made ahead the kernel makes its own."""
    return batch.of(metadata, scheduler_metadata=None)


KNOWN: dict[str, Tell] = {"CPUAttentionBackendImpl": _cpu, "TritonAttentionImpl": _triton, "FlashAttentionImpl": _flash}


def tell_of(impl: Any) -> Tell:
    """How the backend of this implementation is told. Raises UnsupportedModel for one that is not known, and for attention that differs
    by head in more than its keys."""
    if getattr(impl, "sinks", None) is not None or getattr(impl, "alibi_slopes", None) is not None:
        raise UnsupportedModel("attention with sinks or ALiBi, which differ by head, cannot read cores in other numbers by head")
    kind = type(impl).__name__
    if kind not in KNOWN:
        raise UnsupportedModel(
            f"{kind} cannot read cores in other numbers by head here: choose --attention-backend FLASH_ATTN or TRITON_ATTN, or leave"
            ' "adaptive" out of kv_connector_extra_config and use `budget: equal`'
        )
    return KNOWN[kind]


def of_one_head(impl: Any) -> Any:
    """The implementation as it is where the model has one KV head."""
    one = copy.copy(impl)
    one.num_heads, one.num_kv_heads = impl.num_heads // impl.num_kv_heads, 1
    return one
