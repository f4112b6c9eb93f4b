"""Cores in other numbers by layer and head, read by vLLM's attention backends for GPUs.

TRITON_ATTN: vLLM's kernels themselves, in Triton's interpreter. FLASH_ATTN: vLLM's code around a kernel that needs a GPU, which is
written out here instead. Where there is a GPU, both run on it as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import missing

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch

from vllm_triton import CUDA, DEVICE  # isort: skip  before vllm
from vllm.v1.attention.backends import flash_attn
from vllm.v1.attention.backends.flash_attn import FlashAttentionImpl, FlashAttentionMetadata
from vllm.v1.attention.backends.triton_attn import TritonAttentionImpl, TritonAttentionMetadata
from vllm.v1.attention.ops.triton_reshape_and_cache_flash import triton_reshape_and_cache_flash
from vllm_ragged import BHLNC, BLHNC, BLOCK, DIM, GROUP, HEADS, LBHNC, LHBNC, SCALE, Engine, Kernel, answers, lengths, prompts

from semproxy_kv.vllm.backends import Batch, tell_of

CLOSE = {torch.float32: 2e-3 if CUDA else 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
TYPES = [torch.float32, torch.float16, *([torch.bfloat16] if CUDA else [])]  # the interpreter multiplies the bits of BF16 (Triton 3.7.1)
SEGMENTS, SPLIT = 4, 3  # into which a GPU that is idle splits a sequence, where there are at most so many of one token
SCALES = {name: torch.ones(1, device=DEVICE) for name in ("_q_scale", "_k_scale", "_v_scale")}


def triton(dtype: torch.dtype, split: int = SPLIT) -> tuple[Kernel, torch.Tensor]:
    """And a buffer of which something is left where sequences were split."""
    output, most, sums = (
        torch.full((split, HEADS * GROUP, SEGMENTS, *more), float("nan"), device=DEVICE) for more in ((DIM,), (), ())
    )  # of the size that vLLM gives them
    metadata = partial(
        TritonAttentionMetadata, seq_threshold_3D=split, num_par_softmax_segments=SEGMENTS, softmax_segm_output=output,
        softmax_segm_max=most, softmax_segm_expsum=sums, causal=True,
    )  # fmt: skip
    return Kernel(lambda *of: TritonAttentionImpl(*of, "auto"), metadata, SCALES, dtype, DEVICE, CLOSE[dtype]), most


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_triton_splits_the_sequences_of_few_requests(dtype: torch.dtype) -> None:
    kernel, used = triton(dtype)
    answers(Engine(kernel), every=BLOCK)
    assert not used.isnan().all(-1).any(), "of each sequence and head there is a first segment at least"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_triton_does_not_split_those_of_many(dtype: torch.dtype) -> None:
    kernel, used = triton(dtype, SPLIT - 1)
    answers(Engine(kernel), every=BLOCK)
    assert used.isnan().all()


def test_triton_is_told_of_buffers_with_a_row_for_each_token_of_a_head() -> None:
    """vLLM 0.33 does not split sequences where there are fewer."""
    kernel, used = triton(torch.float32)
    impl = kernel.impl(HEADS * GROUP, DIM, SCALE, HEADS, None, None)
    none = torch.zeros(0)
    told = tell_of(impl)(
        SimpleNamespace(impl=impl), kernel.metadata(3, 1, none, 5, none, none, none), Batch(6, none, none, none, 5), used.dtype
    )
    assert told.softmax_segm_output.shape == (SPLIT * HEADS, GROUP, SEGMENTS, DIM)
    assert told.softmax_segm_max.shape == told.softmax_segm_expsum.shape == (SPLIT * HEADS, GROUP, SEGMENTS)
    assert told.softmax_segm_max.data_ptr() == used.data_ptr()
    assert told.seq_threshold_3D == SPLIT * HEADS


@pytest.mark.parametrize("order", [LBHNC, BLHNC, BHLNC, LHBNC], ids=["LBHNC", "BLHNC", "BHLNC", "LHBNC"])
def test_triton_computes_a_prompt_behind_its_cores(order: tuple[int, int, int]) -> None:
    """In every order in which vLLM may lay a cache out, if the slots of a head are together."""
    prompts(Engine(triton(torch.float32)[0], order))


def written_out(q: Any, k: Any, v: Any, max_seqlen_q: int, cu_seqlens_q: Any, max_seqlen_k: int, **more: Any) -> None:
    """FlashAttention's function, as far as it is used, and what its kernels want."""
    table, used, out = more["block_table"], more["seqused_k"], more["out"]
    n, (blocks, block, heads, dims) = len(used), k.shape
    assert (k.shape, k.stride(-1), v.stride(-1)) == (v.shape, 1, 1)
    assert q.shape == out.shape == (int(cu_seqlens_q[-1]), q.shape[1], dims)
    assert q.shape[1] % heads == 0
    assert more["k_descale"].shape == more["v_descale"].shape == (n, heads)
    assert [of.dtype for of in (table, used, cu_seqlens_q)] == [torch.int32] * 3
    assert (len(table), table.stride(1), len(cu_seqlens_q)) == (n, 1, n + 1)
    assert used.is_contiguous()
    assert cu_seqlens_q.is_contiguous()
    assert int(used.max()) <= max_seqlen_k <= table.shape[1] * block
    assert int(cu_seqlens_q.diff().max()) == max_seqlen_q
    assert 0 <= int(table.min()) <= int(table.max()) < blocks
    assert more["causal"] is True
    assert (more["window_size"], more["softcap"], more["num_splits"]) == ([-1, -1], 0, 0)
    assert all(more[name] is None for name in ("scheduler_metadata", "alibi_slopes", "s_aux", "mask_mod", "aux_tensors", "dynamic_causal"))
    for i in range(n):
        here, length = slice(int(cu_seqlens_q[i]), int(cu_seqlens_q[i + 1])), int(used[i])
        keys, values = (of[table[i].long()].flatten(0, 1)[:length].transpose(0, 1) for of in (k, v))
        rows = q[here].transpose(0, 1)
        mask = torch.ones(rows.shape[1], length, dtype=torch.bool).tril(length - rows.shape[1])
        out[here] = torch.nn.functional.scaled_dot_product_attention(
            rows[None], keys[None], values[None], attn_mask=mask, scale=more["softmax_scale"], enable_gqa=True
        )[0].transpose(0, 1)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    def make(dtype: torch.dtype, order: tuple[int, int, int] = LBHNC, planned: Any = None) -> Engine:
        metadata = partial(FlashAttentionMetadata, scheduler_metadata=planned)
        return Engine(Kernel(lambda *of: FlashAttentionImpl(*of, "auto"), metadata, SCALES, dtype, DEVICE, CLOSE[dtype]), order)

    if not CUDA:
        monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", written_out, raising=False)
        monkeypatch.setattr(flash_attn, "reshape_and_cache_flash", triton_reshape_and_cache_flash, raising=False)
        monkeypatch.setattr(flash_attn, "get_flash_attn_version", lambda **_: 3)
    return make


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_flash_attention_answers(flash: Callable[..., Engine], dtype: torch.dtype) -> None:
    answers(flash(dtype))


@pytest.mark.parametrize("order", [LBHNC, BLHNC, BHLNC, LHBNC], ids=["LBHNC", "BLHNC", "BHLNC", "LHBNC"])
def test_flash_attention_computes_a_prompt_behind_its_cores(flash: Callable[..., Engine], order: tuple[int, int, int]) -> None:
    prompts(flash(torch.float16, order))


def test_a_plan_made_for_all_heads_is_not_used(flash: Callable[..., Engine]) -> None:
    engine = flash(torch.float16, planned=torch.full((17,), -1, dtype=torch.int32, device=DEVICE))
    engine.cores("a", lengths(1, 4, 2, 2, 3, 1))
    engine.tokens("a", 3)
    engine.check({"a": 1})
