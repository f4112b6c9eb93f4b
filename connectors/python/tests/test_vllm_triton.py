"""A whole engine on vLLM's Triton backend, whose kernels Triton's interpreter runs, beside one on vLLM's kernel for CPUs: over the same
cores, in other numbers by layer and head, both give the same answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest
from conftest import MODEL, TOKENIZER, missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

from vllm_triton import CUDA  # isort: skip  before vllm
from vllm import LLM, SamplingParams
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm.platforms import current_platform
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from semproxy_kv.vllm.backends import tell_of

if CUDA:
    missing("vllm", "this test is for a machine without a GPU")

POLICY = """apiVersion: semproxy.io/v1
profiles: { quarter: { method: weighted, ratio: 0.25 } }
tenants:
  both: { rules: [ { profile: quarter } ] }
  CPU_ATTN: { rules: [ { profile: quarter } ] }
  TRITON_ATTN: { rules: [ { profile: quarter } ] }
"""
Answer = tuple[list[int], list[float], dict[str, Any]]  # tokens, their log probabilities, what became of the request


@pytest.fixture(scope="module")
def own(binary: str) -> Iterator[LocalSidecar]:
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as s:
        yield s


@contextmanager
def engine(url: str, backend: str) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:  # the platform would take its own kernel, whatever it is told
        patch.setattr(type(current_platform), "get_attn_backend_cls", staticmethod(lambda asked, *_, **__: asked.get_path()))
        llm = LLM(
            model=str(MODEL), skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=1024, block_size=32,
            kv_cache_memory_bytes=32 << 20, max_num_seqs=4, max_num_batched_tokens=1024, scheduler_cls="semproxy_kv.vllm.Scheduler",
            attention_config={"backend": AttentionBackendEnum[backend]},
            kv_transfer_config=KVTransferConfig(
                kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
                kv_load_failure_policy="recompute",
                kv_connector_extra_config={
                    "url": url, "tenant": "both", "timeout": 60.0, "lookup_timeout": 60.0, "prefer_full": 0.0,
                    "live_tokens": 256, "live_after": 2, "live_remaining": 2, "adaptive": True,
                },
            ),
        )  # fmt: skip
    yield llm
    llm.llm_engine.engine_core.shutdown()


def ask(llm: Any, *prompts: list[int], new: int, **params: Any) -> list[Answer]:
    """Answers to prompts that run beside each other. The engine stands still while pages are on the way."""
    sampling = SamplingParams(
        max_tokens=new, min_tokens=new, temperature=0, logprobs=0, detokenize=False, extra_args={"kv_transfer_params": params}
    )
    core, scheduler = llm.llm_engine, llm.llm_engine.engine_core.engine_core.scheduler
    worker, side, deadline = get_kv_transfer_group().worker, scheduler.connector.scheduler, time.monotonic() + 300
    for i, prompt in enumerate(prompts):
        core.add_request(str(i), {"prompt_token_ids": prompt}, sampling)
    done: dict[str, Any] = {}
    while len(done) < len(prompts) or worker._on_the_way or worker._sent or scheduler.has_requests():
        assert time.monotonic() < deadline
        done |= {o.request_id.split("-")[0]: o for o in core.step() if o.finished}
        for t in side._tracked.values():
            while (
                t.live.at is None and t.live.pages and t.live.slots is None and not (worker._next or t.live.why_not or worker._news.failed)
            ):
                assert time.monotonic() < deadline
                time.sleep(0.005)
    out = [(done[str(i)].outputs[0], done[str(i)].kv_transfer_params) for i in range(len(prompts))]
    return [
        (list(o.token_ids), [of[token].logprob for token, of in zip(o.token_ids, o.logprobs, strict=True)], params["semproxy"])
        for o, params in out
    ]


def test_the_answers_are_those_of_the_kernel_for_cpus(own: LocalSidecar, recall_cases: list[dict[str, Any]]) -> None:
    """On cores that one engine has stored, beside a request without, and over a change."""
    case, other = recall_cases[0], recall_cases[1]["context"][:264]
    known = case["context"][:272]
    said: dict[str, list[Answer]] = {}
    for backend, told in {"CPU_ATTN": "_cpu", "TRITON_ATTN": "_triton"}.items():
        with engine(own.url, backend) as llm:
            worker = get_kv_transfer_group().worker
            assert tell_of(worker.layers[0].attention.impl).__name__ == told
            if not said:
                ask(llm, known, new=1)
            beside = ask(llm, known + case["questions"][: case["answers"][0]["at"]], other[:20], new=4)
            said[backend] = beside + ask(llm, other, new=8, tenant=backend)
            assert [outcome["outcome"] for *_, outcome in said[backend]] == ["cores", "exact", "changed_over"]
    for (tokens, logs, outcome), (want, want_logs, same) in zip(said["TRITON_ATTN"], said["CPU_ATTN"], strict=True):
        assert tokens == want
        assert logs == pytest.approx(want_logs, abs=1e-3)
        assert outcome == same
