"""A whole vLLM engine on the CPU, on its own attention kernels, with a small model that was really trained, through a real semproxy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from conftest import MODEL, POLICY, TOKENIZER, missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm import LLM, SamplingParams
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm_harness import KERNELS

from semproxy_kv.vllm.faults import faults

if not KERNELS:
    missing("model", "this package of vLLM has no kernels for CPUs")

CASES = int(os.environ.get("SEMPROXY_RECALL_CASES", "3"))


@pytest.fixture(scope="module")
def own(binary: str) -> Iterator[LocalSidecar]:
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as s:
        yield s


@pytest.fixture(scope="module")
def llm(own: LocalSidecar) -> Iterator[Any]:
    engine = LLM(
        model=str(MODEL), skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=1280, block_size=32,
        kv_cache_memory_bytes=64 << 20, max_num_seqs=4, max_num_batched_tokens=1280,
        hf_overrides={"max_position_embeddings": 1280},  # the questions go a little further than the model's 1024
        kv_transfer_config=KVTransferConfig(
            kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
            kv_load_failure_policy="recompute",
            kv_connector_extra_config={"url": own.url, "tenant": "quarter", "timeout": 2.0, "prefer_full": 0.0},
        ),
    )  # fmt: skip
    yield engine
    engine.llm_engine.engine_core.engine_core.scheduler.connector.shutdown()
    get_kv_transfer_group().shutdown()


def generate(llm: Any, prompts: list[list[int]], new: int, **params: Any) -> list[Any]:
    extra = {"kv_transfer_params": params} if params else None
    sampling = SamplingParams(max_tokens=new, min_tokens=new, temperature=0, detokenize=False, extra_args=extra)
    return llm.generate([{"prompt_token_ids": p} for p in prompts], sampling, use_tqdm=False)  # type: ignore[no-any-return]


def settle(llm: Any, pages: int) -> None:
    """A server's loop goes on when its last request has finished; an LLM's does not."""
    core, worker = llm.llm_engine.engine_core.engine_core, get_kv_transfer_group().worker
    deadline = time.monotonic() + 30
    while worker.saved < pages or core.scheduler.has_requests():
        assert time.monotonic() < deadline, f"{worker.saved} pages were kept, {faults()}"
        core.step_fn()
        time.sleep(0.01)


def test_recall_with_a_quarter_of_the_slots(llm: Any, recall_cases: list[dict[str, Any]]) -> None:
    worker = get_kv_transfer_group().worker
    full = small = asked = 0
    for n, case in enumerate(recall_cases[:CASES]):
        prompts = [case["context"] + case["questions"][: a["at"]] for a in case["answers"]]
        want = [case["questions"][a["at"] : a["at"] + 4] for a in case["answers"]]
        exact = generate(llm, prompts, 4, compress=False)
        generate(llm, [case["context"]], 1)
        settle(llm, 3 * (n + 1))
        cores = generate(llm, prompts, 4)
        asked += len(want)
        full += sum(list(o.outputs[0].token_ids) == w for o, w in zip(exact, want, strict=True))
        small += sum(list(o.outputs[0].token_ids) == w for o, w in zip(cores, want, strict=True))
        for o, prompt in zip(cores, prompts, strict=True):
            assert list(o.prompt_token_ids) == prompt, "the client's prompt, and so its usage, is what it sent"
            assert 212 <= o.num_cached_tokens <= len(prompt) - 848 + 224, "848 tokens in 212 cores, or a few more"
    print(f"\nrecall full {full}/{asked}, with cores {small}/{asked}; requests that loaded cores: {worker.loaded}")
    assert worker.loaded >= CASES
    assert small >= 0.9 * full


def test_killing_semproxy_while_the_engine_generates(llm: Any, own: LocalSidecar, recall_cases: list[dict[str, Any]]) -> None:
    """Requests that run on cores go on, new ones are computed in full, and the fault is counted."""
    known, fresh = recall_cases[0]["context"], recall_cases[CASES]["context"]
    want = generate(llm, [known + fresh[:20]], 24)[0].outputs[0].token_ids
    want_full = generate(llm, [fresh[:600]], 24, compress=False)[0].outputs[0].token_ids
    engine, before, got = llm.llm_engine, sum(faults().values()), {}
    sampling = SamplingParams(max_tokens=24, min_tokens=24, temperature=0, detokenize=False)
    engine.add_request("running", {"prompt_token_ids": known + fresh[:20]}, sampling)
    deadline = time.monotonic() + 60
    while engine.has_unfinished_requests():
        assert time.monotonic() < deadline, "the engine does not come to an end"
        for o in engine.step():
            got[o.request_id] = o.outputs[0].token_ids
            if len(got["running"]) == 8 and own.process.poll() is None:
                own.kill()
                engine.add_request("new", {"prompt_token_ids": fresh[:600]}, sampling)
    assert list(got["running"]) == list(want)
    assert list(got["new"]) == list(want_full)
    assert sum(faults().values()) > before
