"""Speculative decoding by n-gram with a small trained model: drafts that are rejected take tokens back behind the cores, and greedy
answers are those without speculation: on full KV, on stored cores, and in a request that changes over while it is answered.

Without speculation means here: the same engine, whose proposer proposes nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from conftest import MODEL, TOKENIZER, missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm import LLM, SamplingParams
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm_harness import KERNELS

if not KERNELS:
    missing("model", "this package of vLLM has no kernels for CPUs")

TENANTS = ("half", "window", "one", "two", "exact")
POLICY = """apiVersion: semproxy.io/v1
profiles:
  half: { method: weighted, ratio: 0.5 }
  worst: { method: semantic, ratio: 0.05 }
  window: { method: window, ratio: 0.5 }
tenants:
  half: { rules: [ { profile: half } ] }
  window: { rules: [ { profile: window } ] }
  one: { rules: [ { profile: worst } ] }
  two: { rules: [ { profile: worst } ] }
  exact: { rules: [ { profile: exact } ] }
"""
TOKENS, NEW = 700, 60
SPACE = 3400 * 5 * 2 * 2 * 64 * 4  # bytes, of a few thousand tokens


@pytest.fixture(scope="module")
def llm(binary: str) -> Iterator[Any]:
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as own:
        engine = LLM(
            model=str(MODEL), skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=1024, block_size=32,
            max_num_seqs=8, kv_cache_memory_bytes=SPACE, max_num_batched_tokens=1024, scheduler_cls="semproxy_kv.vllm.Scheduler",
            disable_log_stats=False,
            speculative_config={"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1},
            kv_transfer_config=KVTransferConfig(
                kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
                kv_load_failure_policy="recompute",
                kv_connector_extra_config={
                    "url": own.url, "tenants": list(TENANTS), "tenant": "half", "timeout": 60.0, "lookup_timeout": 60.0,
                    "live_tokens": 512, "live_after": 4, "live_remaining": 4, "prefer_full": 0.0,
                },
            ),
        )  # fmt: skip
        yield engine
        engine.llm_engine.engine_core.engine_core.scheduler.connector.shutdown()
        get_kv_transfer_group().shutdown()


@pytest.fixture(autouse=True)
def no_drafts_that_are_none(llm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's sampler for CPUs would take -1 for a token."""
    scheduler = core(llm).scheduler
    real = scheduler.schedule

    def schedule(*args: Any, **kwargs: Any) -> Any:
        output = real(*args, **kwargs)
        assert all(token >= 0 for drafts in output.scheduled_spec_decode_tokens.values() for token in drafts)
        assert output.total_num_scheduled_tokens == sum(output.num_scheduled_tokens.values())
        return output

    monkeypatch.setattr(scheduler, "schedule", schedule)


@pytest.fixture(scope="module")
def ids(recall_cases: list[dict[str, Any]]) -> list[int]:
    return [token for case in recall_cases[:4] for token in case["context"]]


def core(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core


def drafts(llm: Any) -> tuple[int, int]:
    """Tokens that were proposed so far, and of these accepted."""
    seen: dict[str, Any] = {m.name: getattr(m, "value", 0) for m in llm.get_metrics()}
    return seen["vllm:spec_decode_num_draft_tokens"], seen["vllm:spec_decode_num_accepted_tokens"]


@pytest.fixture
def silent(llm: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Turns speculation off, and on again."""
    drafter = core(llm).model_executor.driver_worker.worker.model_runner.drafter
    real = drafter.propose

    def turn(off: bool) -> None:
        monkeypatch.setattr(drafter, "propose", (lambda k, sampled, *rest, **more: [[] for _ in sampled]) if off else real)

    return turn


def settle(llm: Any) -> None:
    """A server's loop goes on when its last request has finished; an LLM's does not."""
    worker, engine, deadline = get_kv_transfer_group().worker, llm.llm_engine, time.monotonic() + 600
    scheduler = core(llm).scheduler
    while worker._on_the_way or worker._sent or scheduler.has_requests():
        assert time.monotonic() < deadline
        engine.step()
        time.sleep(0.01)
    pool = scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "blocks were lost"


def sampling(new: int, **params: Any) -> Any:
    return SamplingParams(max_tokens=new, min_tokens=new, temperature=0, detokenize=False, extra_args={"kv_transfer_params": params})


def step(llm: Any) -> list[Any]:
    """One of the engine, which then stands still while pages of requests that run are on the way: a slow machine tests the same."""
    out = llm.llm_engine.step()
    worker, deadline = get_kv_transfer_group().worker, time.monotonic() + 600
    for t in core(llm).scheduler.connector.scheduler._tracked.values():
        while t.live.pages and t.live.slots is None and t.request.request_id in worker._delivering:
            assert time.monotonic() < deadline
            time.sleep(0.002)
    return list(out)


def ask(llm: Any, prompt: list[int], new: int = NEW, at: int = 0, **params: Any) -> Any:
    """An answer, of a request that does not change over before it has said `at` tokens."""
    engine, side = llm.llm_engine, core(llm).scheduler.connector.scheduler
    due, name, done = side.due, f"r{time.monotonic_ns()}", None
    if at:
        side.due = lambda room: due(room) if all(t.request.num_output_tokens >= at for t in side._tracked.values()) else []
    try:
        engine.add_request(name, {"prompt_token_ids": prompt}, sampling(new, **params))
        deadline = time.monotonic() + 900
        while done is None:
            assert time.monotonic() < deadline
            for o in step(llm):
                done = o if o.finished else None
    finally:
        side.due = due
    settle(llm)
    return done


def said(o: Any) -> list[int]:
    return list(o.outputs[0].token_ids)


def both(llm: Any, silent: Any, prompt: list[int], **params: Any) -> tuple[Any, Any]:
    """Answers without and with speculation, of which some drafts were accepted, and some not."""
    silent(True)
    before = drafts(llm)
    plain = ask(llm, prompt, **params)
    assert drafts(llm) == before
    silent(False)
    fast = ask(llm, prompt, **params)
    proposed, accepted = (b - a for a, b in zip(before, drafts(llm), strict=True))
    assert proposed > accepted > 0
    return plain, fast


def test_on_full_kv(llm: Any, silent: Any, ids: list[int]) -> None:
    plain, fast = both(llm, silent, ids[:TOKENS], compress=False)
    assert said(fast) == said(plain)
    assert len(said(fast)) == NEW


@pytest.mark.parametrize("tenant", ["half", "window"])
def test_on_stored_cores(llm: Any, silent: Any, ids: list[int], tenant: str) -> None:
    """In other numbers by layer and head, and as many in each."""
    prompt = ids[100 : 100 + TOKENS]
    ask(llm, prompt, 1, tenant=tenant)
    llm.reset_prefix_cache()
    plain, fast = both(llm, silent, prompt, tenant=tenant)
    assert fast.kv_transfer_params == plain.kv_transfer_params
    assert fast.kv_transfer_params["semproxy"]["outcome"] == "cores"
    assert said(fast) == said(plain)
    if tenant == "window":
        exact = ask(llm, prompt, compress=False)
        assert said(exact) != said(fast), "cores that say what the full KV does would prove nothing"


def test_one_token_behind_cores_that_the_engine_has_still(llm: Any, silent: Any, ids: list[int]) -> None:
    """vLLM fills such a step up with drafts of -1, which are taken out again."""
    prompt = ids[300 : 300 + 705]
    ask(llm, prompt, 1, tenant="half")
    llm.reset_prefix_cache()
    first = ask(llm, prompt, tenant="half")
    assert first.kv_transfer_params["semproxy"]["outcome"] == "cores"
    n = first.kv_transfer_params["semproxy"]["tokens"] - first.kv_transfer_params["semproxy"]["slots"]
    short = prompt[: n + (len(prompt) - n) // 32 * 32 + 1]  # all but one of its slots are full blocks
    plain, fast = both(llm, silent, short, tenant="half")
    assert fast.num_cached_tokens == len(short) - n - 1
    assert said(fast) == said(plain)
    warm = sampling(30, tenant="half")
    warm.temperature, warm.seed = 1.5, 3
    out = llm.generate([{"prompt_token_ids": short}], warm, use_tqdm=False)[0]
    settle(llm)
    assert min(said(out)) >= 0
    assert len(said(out)) == 30


def test_after_a_live_change_over(llm: Any, silent: Any, ids: list[int]) -> None:
    prompt = ids[200 : 200 + TOKENS]
    silent(False)
    before = drafts(llm)
    fast = ask(llm, prompt, 120, tenant="one")
    proposed, accepted = (b - a for a, b in zip(before, drafts(llm), strict=True))
    assert proposed > accepted > 0
    got = fast.kv_transfer_params["semproxy"]
    assert got["outcome"] == "changed_over"
    llm.reset_prefix_cache()
    silent(True)
    plain = ask(llm, prompt, 120, at=got["at"], tenant="two")
    assert plain.kv_transfer_params["semproxy"] == got
    assert said(fast) == said(plain)
    assert len(said(fast)) == 120
    llm.reset_prefix_cache()
    exact = ask(llm, prompt, 120, compress=False)
    assert said(exact)[: got["at"]] == said(fast)[: got["at"]]
    assert said(exact) != said(fast), "cores that say what the full KV does would prove nothing"
    turn = [*prompt, *said(fast)[:-1], *ids[50:60]]
    plain, fast = both(llm, silent, turn, tenant="one")
    assert fast.kv_transfer_params["semproxy"]["outcome"] == "cores"
    assert fast.kv_transfer_params["semproxy"]["tokens"] > 700, "what was answered behind the cores was kept, with no draft in it"
    assert said(fast) == said(plain)


def test_many_at_once_in_a_space_that_is_too_small(llm: Any, silent: Any, ids: list[int]) -> None:
    engine, scheduler = llm.llm_engine, core(llm).scheduler
    llm.reset_prefix_cache()
    prompts = [ids[150 * (i % 4) : 150 * (i % 4) + TOKENS - 8] + ids[i : i + 8] for i in range(8)]
    silent(True)
    want = [said(ask(llm, p, 48, compress=False)) for p in prompts]
    silent(False)
    for i, prompt in enumerate(prompts):
        engine.add_request(f"m{i}", {"prompt_token_ids": prompt}, sampling(48 if i % 2 else 90, tenant=TENANTS[i % 5]))
    done: dict[str, Any] = {}
    deadline = time.monotonic() + 900
    while engine.has_unfinished_requests():
        assert time.monotonic() < deadline
        for o in step(llm):
            if o.finished:
                done[o.request_id.split("-")[0]] = o
    assert len(done) == 8
    outcomes = set()
    for i in range(8):
        got = done[f"m{i}"].kv_transfer_params["semproxy"]
        outcomes.add(got["outcome"])
        right = 48 if got["outcome"] == "exact" else min(got.get("at", 0), 48)
        assert said(done[f"m{i}"])[:right] == want[i][:right], (i, got)
        assert len(said(done[f"m{i}"])) == (48 if i % 2 else 90)
    assert "changed_over" in outcomes
    settle(llm)
    assert not scheduler.requests
