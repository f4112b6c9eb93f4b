"""SmolLM2 in vLLM, on the engine's own attention kernels. Import it after conftest has said that there is a vLLM."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from conftest import ROOT, missing
from vllm import LLM, SamplingParams
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm_harness import KERNELS

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


@contextmanager
def engine(url: str, timeout: float, lookup_timeout: float) -> Iterator[Any]:
    """Room for 16 requests, and KV for fewer; timeouts are seconds."""
    llm = LLM(
        model=str(FOLDER), dtype="float32", enforce_eager=True, max_model_len=2048, block_size=32, max_num_seqs=16,
        kv_cache_memory_bytes=256 << 20, max_num_batched_tokens=1024, scheduler_cls="semproxy_kv.vllm.Scheduler", disable_log_stats=False,
        kv_transfer_config=KVTransferConfig(
            kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
            kv_load_failure_policy="recompute",
            kv_connector_extra_config={
                "url": url, "tenants": list(TENANTS), "tenant": "half", "timeout": timeout, "lookup_timeout": lookup_timeout, "pause": 0.5,
                "live_tokens": 512, "live_after": 4, "live_remaining": 4, "prefer_full": 0.0,
            },
        ),
    )  # fmt: skip
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.engine_core.scheduler.connector.shutdown()
        get_kv_transfer_group().shutdown()


def text(llm: Any) -> list[int]:
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
