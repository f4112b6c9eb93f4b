"""Cores in other numbers by layer and head, read by vLLM's own kernel for CPUs, against attention that is written out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import missing

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm.config import set_current_vllm_config
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl, CPUAttentionMetadata, _get_attn_isa
from vllm_harness import EIGHT_BITS, KERNELS, engine_config
from vllm_ragged import BLOCK, BLOCKS, DIM, HEADS, LAYERS, SHAPE, Engine, Kernel, answers, lengths, prompts

from semproxy_kv import UnsupportedModel
from semproxy_kv.vllm.check import QUANTISED
from semproxy_kv.vllm.units import Reader, units_of

if not KERNELS:
    missing("model", "this package of vLLM has no kernels for CPUs")


def cpu(cache: str = "auto") -> Kernel:
    kept, scale = QUANTISED.get(cache), 0.25 if cache in QUANTISED else 1.0
    isa = _get_attn_isa(torch.float32, BLOCK, DIM, cache)

    def impl(*of: Any) -> Any:
        with set_current_vllm_config(engine_config("nats://127.0.0.1:9")):
            return CPUAttentionBackendImpl(*of, cache)

    return Kernel(
        impl,
        partial(CPUAttentionMetadata, scheduler_metadata=None),
        {"isa": isa, "_k_scale_float": scale, "_v_scale_float": scale},
        close=2e-3 if kept else 2e-5,
        kept=kept,
        scale=scale,
    )


@pytest.fixture
def engine() -> Engine:
    return Engine(cpu())


@pytest.fixture(params=["auto", "fp8_e4m3", "fp8_e5m2"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    if request.param != "auto" and not EIGHT_BITS:
        pytest.skip("vLLM keeps eight bits on CPUs with AVX-512 or AMX only")
    return Engine(cpu(request.param))


def test_heads_with_other_numbers_of_cores_beside_a_request_without(any_engine: Engine) -> None:
    answers(any_engine)


def test_a_prompt_that_is_computed_behind_its_cores_in_pieces(any_engine: Engine) -> None:
    prompts(any_engine)


def test_blocks_that_become_anothers(engine: Engine) -> None:
    """The same first block, and all else different."""
    engine.cores("a", lengths(2, 2, 2, 2, 3, 1))
    engine.tokens("a", 5)
    engine.check({"a": 1})
    engine.free += engine.blocks["a"][1:]
    engine.free.append(engine.blocks["a"][0])
    engine.reader.drop("a")
    engine.cores("b", lengths(1, 3, 1, 3, 1, 3))
    engine.tokens("b", 5)
    assert engine.blocks["b"][0] == engine.blocks["a"][0]
    engine.check({"b": 1})
    engine.tokens("b", 30)
    engine.check({"b": 7})


def test_another_request_in_the_row_of_one_that_has_ended(engine: Engine) -> None:
    """As many blocks, and others: what was made for the batch before does not fit, though the request on cores is the same."""
    engine.cores("a", lengths(2, 1, 2, 3, 3, 1))
    for name in "acd":
        engine.tokens(name, 20)
    engine.check({"a": 1, "c": 1})
    engine.check({"a": 1, "d": 1})


def test_cores_of_which_the_worker_was_told_nothing_are_refused(engine: Engine) -> None:
    engine.cores("a", lengths(2, 1, 2, 3, 3, 1))
    engine.reader.hold("even", tuple(engine.blocks["a"]), None)
    engine.reader.begin({"a": engine.blocks["a"][0], "even": 5})
    assert list(engine.reader._now) == [engine.blocks["a"][0]]
    engine.reader.drop("a")
    with pytest.raises(RuntimeError, match=r"\['a'\] read cores"):
        engine.reader.begin({"a": engine.blocks["a"][0], "even": 5})


def test_caches_that_are_no_rows_of_units_are_refused() -> None:
    room = torch.zeros(LAYERS, BLOCKS, HEADS, BLOCK, 2 * DIM)
    for what, caches in {
        "apart": [torch.zeros_like(layer) for layer in room],
        "slots before heads": list(torch.zeros(LAYERS, BLOCKS, BLOCK, HEADS, 2 * DIM).transpose(2, 3)),
    }.items():
        with pytest.raises(UnsupportedModel, match="row of blocks of one head's 32 slots: VLLM_KV_CACHE_LAYOUT=HND"):
            units_of(caches, SHAPE)
        assert what
    blocks_first = units_of(list(torch.zeros(BLOCKS, LAYERS, HEADS, BLOCK, 2 * DIM).transpose(0, 1)), SHAPE)
    assert blocks_first.of(torch.tensor([2])).flatten().tolist() == list(range(2 * LAYERS * HEADS, 3 * LAYERS * HEADS))
    for impl, why in {
        "sinks": SimpleNamespace(sinks=room, alibi_slopes=None),
        "SimpleNamespace cannot read .* --attention-backend FLASH_ATTN or TRITON_ATTN": SimpleNamespace(),
    }.items():
        with pytest.raises(UnsupportedModel, match=impl):
            Reader(units_of(list(room), SHAPE), SHAPE, [SimpleNamespace(impl=why)])
    assert replace(SHAPE, units=False) != SHAPE
