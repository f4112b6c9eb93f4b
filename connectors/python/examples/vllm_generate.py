"""A vLLM engine with the connector, in this process: the second prompt begins as the first, and takes its cores.

    python examples/vllm_generate.py --model meta-llama/Llama-3.1-8B --url nats://127.0.0.1:4222 --tenant acme --text long.txt

As a server, which semproxy's proxy may stand in front of (proxy_chat.py):

    vllm serve meta-llama/Llama-3.1-8B --scheduler-cls semproxy_kv.vllm.Scheduler --kv-transfer-config '{
      "kv_connector": "SemproxyConnector", "kv_connector_module_path": "semproxy_kv.vllm", "kv_role": "kv_both",
      "kv_load_failure_policy": "recompute",
      "kv_connector_extra_config": {"url": "nats://127.0.0.1:4222", "tenant": "acme"}}'
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.config import KVTransferConfig

from semproxy_kv import Client, Options


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--tokenizer", help="default: the model's")
    p.add_argument("--dtype", default="auto")
    p.add_argument("--url", default="nats://127.0.0.1:4222")
    p.add_argument("--tenant", default="default", help="whose policy decides")
    p.add_argument("--text", type=Path, required=True, help="the beginning of both prompts")
    p.add_argument("--context", type=int, default=800, help="at most so many tokens of it")
    p.add_argument("--new", type=int, default=32)
    p.add_argument("--kv-bytes", type=int, help="memory of the KV cache; default: what vLLM takes")
    return p.parse_args()


def stored(client: Client) -> bytes:
    return client.stat().body


def main() -> None:
    args = arguments()
    llm = LLM(
        model=args.model,
        tokenizer=args.tokenizer,
        dtype=args.dtype,
        enforce_eager=True,
        block_size=32,  # cores fill whole blocks of a head
        kv_cache_memory_bytes=args.kv_bytes,
        scheduler_cls="semproxy_kv.vllm.Scheduler",  # a long answer changes over while it is generated
        kv_transfer_config=KVTransferConfig(
            kv_connector="SemproxyConnector",
            kv_connector_module_path="semproxy_kv.vllm",
            kv_role="kv_both",
            kv_load_failure_policy="recompute",
            kv_connector_extra_config={"url": args.url, "tenant": args.tenant, "prefer_full": 0.0},  # cores, though there is room
        ),
    )
    ids = llm.get_tokenizer().encode(args.text.read_text())[: args.context]
    sampling = SamplingParams(max_tokens=args.new, temperature=0)

    def ask(what: str, prompt: list[int]) -> None:
        began = time.perf_counter()
        out: Any = llm.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)[0]
        seconds = time.perf_counter() - began
        print(f"\n{what}: {len(prompt)} tokens of prompt, {out.num_cached_tokens or 0} slots taken over, {args.new / seconds:.1f} tokens/s")
        print("  " + out.outputs[0].text.strip().replace("\n", "\n  "))

    with Client(args.url, Options(tenant=args.tenant)) as client:
        before = stored(client)
        ask("computed in full", ids)
        now, since, deadline = before, time.monotonic(), time.monotonic() + 60
        while time.monotonic() < min(deadline, since + 3 if now != before else deadline):  # a prompt has several pages
            # A server's engine goes on by itself until the pages are on their way.
            llm.generate([{"prompt_token_ids": ids[:8]}], SamplingParams(max_tokens=1, temperature=0), use_tqdm=False)
            time.sleep(0.1)
            if (then := stored(client)) != now:
                now, since = then, time.monotonic()
    ask("with cores", ids + ids[:16])


if __name__ == "__main__":
    main()
