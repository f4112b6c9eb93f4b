"""Prompts that vLLM reads again while it has nothing else to do: what it sees, and that nobody sees it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from transformers import AutoModelForCausalLM
from vllm import LLM, SamplingParams
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import RequestStatus
from vllm_harness import KERNELS

from semproxy_kv.hf import measure_importance
from semproxy_kv.vllm import importance

FOLDER = Path(os.environ.get("SEMPROXY_TEST_MODEL", "/nonexistent"))
if not (FOLDER / "model.safetensors").exists():
    missing("model", "SEMPROXY_TEST_MODEL names no folder of SmolLM2 (tests/pretrained.py makes one)")
if not KERNELS:
    missing("model", "this package of vLLM has no kernels for CPUs")

POLICY = """apiVersion: semproxy.io/v1
profiles:
  quarter: { method: weighted, ratio: 0.25 }
  exact: { method: none }
tenants:
  quarter: { rules: [ { profile: quarter } ] }
  exact: { rules: [ { profile: exact } ] }
"""


@pytest.fixture(scope="module")
def llm(binary: str) -> Iterator[Any]:
    with LocalSidecar(POLICY, tokenizer=str(FOLDER / "tokenizer.json")) as own:
        engine = LLM(
            model=str(FOLDER), dtype="float32", enforce_eager=True, max_model_len=2048, block_size=32, max_num_seqs=4,
            kv_cache_memory_bytes=256 << 20, max_num_batched_tokens=192, scheduler_cls="semproxy_kv.vllm.Scheduler",
            disable_log_stats=False,
            kv_transfer_config=KVTransferConfig(
                kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
                kv_load_failure_policy="recompute",
                kv_connector_extra_config={"url": own.url, "tenant": "quarter", "importance": True, "prefer_full": 0.0},
            ),
        )  # fmt: skip
        yield engine
        scheduler(engine).connector.shutdown()
        get_kv_transfer_group().shutdown()


@pytest.fixture(scope="module")
def ids(llm: Any) -> list[int]:
    return list(llm.get_tokenizer().encode((ROOT / "docs/explanation/algorithm.md").read_text()))


@pytest.fixture
def sent(llm: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is sent, as (Save, importance)."""
    worker, seen = get_kv_transfer_group().worker, list[Any]()
    send = worker._send

    def seeing(save: Any, kept: Any, asked: Any, needed: Any, replies: Any) -> None:
        seen.append((save, needed))
        send(save, kept, asked, needed, replies)

    monkeypatch.setattr(worker, "_send", seeing)
    return seen


def scheduler(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core.scheduler


def ask(llm: Any, prompt: list[int], new: int = 4, **params: Any) -> Any:
    sampling = SamplingParams(max_tokens=new, temperature=0, extra_args={"kv_transfer_params": params})
    return llm.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)[0]


def idle(llm: Any, steps: int = 1 << 30) -> None:
    """A server's loop goes on when its last request has finished; an LLM's does not."""
    worker, deadline = get_kv_transfer_group().worker, time.monotonic() + 120
    while steps and (worker._on_the_way or worker._sent or scheduler(llm).has_requests()):
        assert time.monotonic() < deadline
        assert llm.llm_engine.step() == [], "nobody has asked for anything"
        steps -= 1
    if steps:
        pool = scheduler(llm).kv_cache_manager.block_pool
        assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "blocks were lost"


def wanted(llm: Any, text: list[int], part: int) -> torch.Tensor:
    """By transformers, [layers, kv_heads, tokens]."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    model.eval()
    asked = torch.tensor([text])
    with torch.no_grad():
        cache = model(input_ids=asked, use_cache=True, logits_to_keep=1).past_key_values
    return measure_importance(model, cache, asked, llm.get_tokenizer(), chunk=part)[:, 0]


@pytest.mark.parametrize("part", [2048, 300])
def test_a_stored_prompt_is_read_again_and_its_pages_say_what_is_needed(
    part: int, llm: Any, ids: list[int], sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importance, "PART", part)
    prompt = ids[part : part + 600]
    ask(llm, prompt)
    idle(llm)
    (first, nothing), (again, needed) = sent
    assert nothing is None
    assert (again.pages, again.ids, again.tenant) == (first.pages, first.ids, first.tenant)
    text = prompt[: again.pages[-1][1]]
    want = wanted(llm, text, part)
    assert needed.shape == want.shape
    assert (needed - want).abs().max() < 2e-3
    after = ask(llm, prompt)
    assert after.kv_transfer_params["semproxy"]["outcome"] == "cores"
    idle(llm)
    assert len(sent) == 2, "cores are not read again"
    assert sum(getattr(m, "value", 0) for m in llm.get_metrics() if "read_again" in m.name) >= 1


def test_who_comes_goes_first_and_it_is_read_afterwards(llm: Any, ids: list[int], sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told, update = set[str](), scheduler(llm).update_from_output

    def telling(*args: Any) -> Any:
        outputs = update(*args)
        told.update(o.request_id for of in outputs.values() for o in of.outputs)
        return outputs

    monkeypatch.setattr(scheduler(llm), "update_from_output", telling)
    prompt, other = ids[3000:3700], ids[4000:4100]
    exact = ask(llm, other, compress=False).outputs[0].token_ids
    ask(llm, prompt)
    while scheduler(llm).connector.scheduler.readings.request is None:
        idle(llm, 1)
    reading = scheduler(llm).connector.scheduler.readings.request.request_id
    got = ask(llm, other, compress=False)
    assert got.outputs[0].token_ids == exact
    assert reading not in scheduler(llm).requests
    assert [needed is None for _, needed in sent] == [True]
    idle(llm)
    assert [needed is None for _, needed in sent] == [True, False]
    assert len(told) == 3, "the frontend hears of what was asked, and of nothing else"
    assert (sent[1][1] - wanted(llm, prompt[: sent[1][0].pages[-1][1]], 2048)).abs().max() < 2e-3


def test_an_engine_that_ends_all_requests_does_not_read_on(llm: Any, ids: list[int], sent: list[Any]) -> None:
    ask(llm, ids[2000:2700])
    while scheduler(llm).connector.scheduler.readings.request is None:
        idle(llm, 1)
    assert scheduler(llm).finish_requests(None, RequestStatus.FINISHED_ABORTED) == []
    assert not scheduler(llm)._idle
    idle(llm)
    assert [needed for _, needed in sent] == [None]
    ask(llm, ids[2100:2700])
    scheduler(llm).set_pause_state(PauseState.PAUSED_NEW)
    idle(llm)
    assert len(sent) == 2
    scheduler(llm).set_pause_state(PauseState.UNPAUSED)
    idle(llm)
    assert len(sent) == 3


def test_what_a_tenant_keeps_exactly_is_not_read(llm: Any, ids: list[int], sent: list[Any]) -> None:
    ask(llm, ids[1500:2100], tenant="exact")
    idle(llm)
    assert [needed for _, needed in sent] == [None]


def test_what_has_no_room_to_be_repeated_is_not_read(llm: Any, ids: list[int], sent: list[Any]) -> None:
    ask(llm, ids[:1900])
    idle(llm)
    assert [needed for _, needed in sent] == [None]
