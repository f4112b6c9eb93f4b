"""Full cache against cores on vLLM's stock attention, as a Markdown table.

    semproxy-kv bench --model DIR                   # 2,048 and 7,168 tokens of prompt, 1, 4 and 16 requests at once; half an hour
    semproxy-kv bench --model DIR --quick           # 1 and 4 requests at once; minutes

Each line is one run: the same requests are measured before and after they change over, so that a loaded machine changes both.
"limit" is the engine itself with prompts of as many tokens as the cores have slots, at the end of the same run: nothing can be faster.
The engine runs in this process, semproxy as a child of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..client import LocalSidecar
from .recall import Case, read

STEPS = 32  # decode steps that a figure is the median of
FIRST = 7  # first tokens that a figure is the median of
PATIENCE = 600.0  # seconds for the cores of all requests to arrive
POLICY = """apiVersion: semproxy.io/v1
profiles:
  by2: { method: weighted, ratio: 0.5 }
  by4: { method: weighted, ratio: 0.25 }
  by8: { method: weighted, ratio: 0.125 }
tenants:
  by2: { rules: [ { profile: by2 } ] }
  by4: { rules: [ { profile: by4 } ] }
  by8: { rules: [ { profile: by8 } ] }
"""


@dataclass
class Figures:
    """Of one run. Times are seconds."""

    full: float  # of a step on full KV
    cores: float  # of a step on cores
    limit: float  # of a step of plain vLLM on as few tokens
    slots: int  # of KV, all requests, before and after
    slots_after: int
    change: float  # the steps in which requests changed over, beyond what such a step takes
    waited: float  # from the first page that was sent until the last request had changed over
    steps: int  # decode steps meanwhile

    @property
    def pays_from(self) -> str:
        """The number of tokens, from the first page that was sent, after which an answer is ahead of one that stays on its full KV."""
        gain = self.full - self.cores
        return f"{max(self.waited - self.steps * self.cores, 0.0) / gain:.0f}" if gain > 0 else "never"


class Bench:
    def __init__(self, args: argparse.Namespace, sidecar: LocalSidecar) -> None:
        from vllm import LLM
        from vllm.config import KVTransferConfig

        self.args = args
        most = json.loads((Path(args.model) / "config.json").read_text())["max_position_embeddings"]
        self.longest = min(max(args.tokens, default=4096) + 4096, most)
        if max(args.tokens, default=0) + 512 > most:
            raise SystemExit(f"the model was trained for {most} tokens: prompts of {max(args.tokens)} leave no room for answers")
        self.llm: Any = LLM(
            model=args.model, dtype=args.dtype, max_model_len=self.longest, max_num_seqs=max(*args.batch, args.held),
            enforce_eager=args.eager, block_size=32, kv_cache_memory_bytes=args.kv_bytes, max_num_batched_tokens=2048,
            enable_prefix_caching=False,
            scheduler_cls="semproxy_kv.vllm.Scheduler",
            kv_transfer_config=KVTransferConfig(
                kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
                kv_load_failure_policy="recompute",
                kv_connector_extra_config={
                    "url": sidecar.url, "shared_memory": sidecar.shared_memory,
                    "tenant": args.ratios[0], "live_after": 1, "live_remaining": 1, "live_tokens": 256, "timeout": 120.0,
                    "save_bytes": 1 << 36, "cache_bytes": 1 << 36, "lookup_timeout": 10.0,
                    "importance": args.importance, **args.connector,
                },
            ),
        )  # fmt: skip
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        self.worker: Any = get_kv_transfer_group().worker
        self.engine = self.llm.llm_engine
        self.scheduler: Any = self.engine.engine_core.engine_core.scheduler
        tokenizer = self.llm.get_tokenizer()
        self.encode = tokenizer.encode
        self.ids: list[int] = [i for file in args.text for i in tokenizer.encode(Path(file).read_text())]
        self.count = 0

    def prompt(self, tokens: int) -> list[int]:
        """Some text, from another place each time."""
        self.count += 1
        at = random.Random(self.count).randrange(len(self.ids))
        return ((self.ids[at:] + self.ids) * (tokens // len(self.ids) + 1))[:tokens]

    def add(self, prompt: list[int], new: int, **params: Any) -> str:
        from vllm import SamplingParams

        self.count += 1
        name = f"r{self.count}"
        sampling = SamplingParams(
            max_tokens=new, min_tokens=new, temperature=0, detokenize=False, extra_args={"kv_transfer_params": params}
        )
        self.engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
        return name

    def step(self) -> float:
        began = time.perf_counter()
        self.engine.step()
        return time.perf_counter() - began

    def used(self) -> int:
        """Slots of the blocks that are in use."""
        pool = self.scheduler.kv_cache_manager.block_pool
        return int(pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()) * int(self.worker.shape.block)

    def drop(self, names: Sequence[str]) -> None:
        self.engine.abort_request(list(names))
        while self.engine.has_unfinished_requests() or self.worker._on_the_way or self.used():
            self.engine.step()
            time.sleep(0.002)

    def prefilled(self, names: Sequence[str]) -> float:
        began = time.perf_counter()
        while any(r.num_output_tokens == 0 for r in self.scheduler.requests.values()) or len(self.scheduler.running) < len(names):
            self.engine.step()
        return time.perf_counter() - began

    def plain(self, tokens: int, batch: int) -> float:
        names = [self.add(self.prompt(tokens), self.longest - tokens - 1, compress=False) for _ in range(batch)]
        self.prefilled(names)
        took = statistics.median(self.step() for _ in range(STEPS))
        self.drop(names)
        return took

    def live_after(self, tokens: int) -> None:
        """From how many tokens of their answers on requests that are there change over: when all of them run."""
        side = self.scheduler.connector.scheduler
        side.settings = replace(side.settings, live_after=tokens)

    def run(self, tokens: int, batch: int, tenant: str) -> Figures:
        names = [self.add(self.prompt(tokens), self.longest - tokens - 1, tenant=tenant) for _ in range(batch)]
        self.live_after(1 << 30)
        self.prefilled(names)
        full = statistics.median(self.step() for _ in range(STEPS))
        before, entered, change, steps = self.used(), self.worker.entered, 0.0, 0
        began = time.perf_counter()
        self.live_after(1)
        while self.worker.entered < entered + batch:
            at, took, steps = self.worker.entered, self.step(), steps + 1
            change += max(took - full, 0.0) if self.worker.entered > at else 0.0
            tracked = self.scheduler.connector.scheduler._tracked.values()
            why = {t.live.why_not for t in tracked} - {""}
            if why or time.perf_counter() - began > PATIENCE:
                raise SystemExit(f"{batch} requests of {tokens} tokens have not changed over: {', '.join(sorted(why)) or 'no cores came'}")
        waited = time.perf_counter() - began
        cores = statistics.median(self.step() for _ in range(STEPS))
        after = self.used()
        slots = max(r.num_tokens for r in self.scheduler.requests.values())
        self.drop(names)
        return Figures(full, cores, self.plain(slots, batch), before, after, change, waited, steps)

    def first_token(self, tokens: int, tenant: str) -> tuple[float, float]:
        """Seconds until a request has its first token, exactly and under a tenant whose prompts are compressed: medians, in turns."""
        self.live_after(1 << 30)
        took: dict[str, list[float]] = {"": [], tenant: []}
        for _ in range(FIRST):
            for who, times in took.items():
                name = self.add(self.prompt(tokens), 8, **({"tenant": who} if who else {"compress": False}))
                times.append(self.prefilled([name]))
                self.drop([name])
        return statistics.median(took[""]), statistics.median(took[tenant])

    def held(self, tokens: int, tenant: str) -> int:
        """How many requests of so many tokens, with cores or without, the KV space holds at once."""
        prompts = [self.prompt(tokens) for _ in range(self.args.held)]
        if tenant:
            self.ask(prompts, 1, tenant=tenant)
            self.settle()
        names = [self.add(p, 256, **({"tenant": tenant} if tenant else {"compress": False})) for p in prompts]
        most, steps, deadline = 0, 0, time.monotonic() + 120
        while steps < 128 and time.monotonic() < deadline:  # cores are looked up and loaded meanwhile
            self.engine.step()
            if self.scheduler.running:
                steps += 1
            else:
                time.sleep(0.002)
            most = max(most, len(self.scheduler.running))
        self.drop(names)
        return most

    def ask(self, prompts: list[list[int]], new: int, **params: Any) -> list[Any]:
        from vllm import SamplingParams

        sampling = SamplingParams(max_tokens=new, temperature=0, extra_args={"kv_transfer_params": params})
        return self.llm.generate([{"prompt_token_ids": p} for p in prompts], sampling, use_tqdm=False)

    def settle(self) -> None:
        while self.worker._on_the_way or self.worker._sent or self.scheduler.has_requests():
            self.engine.step()
            time.sleep(0.01)

    def recall(self, cases: list[Case], tenants: Sequence[str]) -> dict[str, list[int]]:
        """Of every question whether the engine's greedy answer is right: on the full KV, and on the stored cores of each tenant."""
        from vllm import SamplingParams

        right: dict[str, list[int]] = {}
        for tenant in ("", *tenants):
            params: dict[str, Any] = {"tenant": tenant} if tenant else {"compress": False}
            right[tenant] = []
            for case in cases:
                if tenant:
                    self.ask([case.context], 1, **params)
                    self.settle()
                longest = max(len(q.answer) for q in case.questions)
                sampling = SamplingParams(max_tokens=longest, temperature=0, extra_args={"kv_transfer_params": params})
                prompts = [{"prompt_token_ids": case.context + q.prompt} for q in case.questions]
                for q, o in zip(case.questions, self.llm.generate(prompts, sampling, use_tqdm=False), strict=True):
                    right[tenant].append(int(list(o.outputs[0].token_ids)[: len(q.answer)] == q.answer))
                    outcome = (o.kv_transfer_params or {}).get("semproxy", {}).get("outcome")
                    if tenant and outcome != "cores":
                        raise SystemExit(f"a question about a {case.task} was not answered on cores: {o.kv_transfer_params}")
        return right


def bench(args: argparse.Namespace) -> None:
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    tokenizer = Path(args.model) / "tokenizer.json"
    policy = args.policy.read_text() if args.policy else POLICY
    with LocalSidecar(policy, tokenizer=str(tokenizer) if tokenizer.exists() else "") as sidecar:
        b = Bench(args, sidecar)
        slots = b.scheduler.kv_cache_manager.block_pool.num_gpu_blocks * b.worker.shape.block
        print(f"\n{Path(args.model).name}, {args.dtype}, {slots} slots of KV\n")
        print("| tokens | requests | cores | tokens/s full | on cores | limit | gain | its limit | share | KV slots | after ", end="")
        print("| change ms | per 1,000 tokens | pays from token | ready s |\n|" + " ---: |" * 15, flush=True)
        for tokens in args.tokens:
            for batch in args.batch:
                for tenant in args.ratios:
                    f = b.run(tokens, batch, tenant)
                    gain, limit = f.full / f.cores, f.full / f.limit
                    speeds = [f"{batch / x:.1f}" for x in (f.full, f.cores, f.limit)]
                    gains = [f"{gain:.2f}x", f"{limit:.2f}x", f"{gain / limit:.0%}"]
                    each = f"{1e6 * f.change / (batch * tokens):.1f}"
                    times = [f"{1000 * f.change:.0f}", each, f.pays_from, f"{f.waited:.1f}"]
                    row = [tokens, batch, multiple(tenant), *speeds, *gains, f.slots, f.slots_after, *times]
                    print("| " + " | ".join(map(str, row)) + " |", flush=True)
        if args.first_token:
            for tokens in args.tokens:
                exact, ours = b.first_token(tokens, args.ratios[0])
                print(f"\nFirst token of {tokens}: exactly {exact:.3f} s, with compression {ours:.3f} s ({ours / exact:.3f})", flush=True)
        if args.held:
            n = min(args.tokens)
            found = {name: b.held(n, tenant) for name, tenant in (("full KV", ""), *((multiple(t), t) for t in args.ratios))}
            print(f"\nRequests of {n} tokens at once, of {args.held}: " + ", ".join(f"{name} {k}" for name, k in found.items()), flush=True)
        if args.tasks:
            cases = read(args.tasks, b.llm.get_tokenizer(), args.cases)
            right = b.recall(cases, args.ratios)
            n, full = len(right[""]), sum(right[""])
            print(f"\n{n} questions about {len(cases)} texts of {args.tasks.name}: on the full KV {full} right", end="", flush=True)
            for tenant in args.ratios:
                lost = sum(a > b for a, b in zip(right[""], right[tenant], strict=True))
                print(f"; at {multiple(tenant)} {sum(right[tenant])} ({lost} of the {full} lost)", end="")
            print(flush=True)


def multiple(tenant: str) -> str:
    """4x for by4; another tenant's name as it is."""
    return f"{tenant[2:]}x" if tenant in ("by2", "by4", "by8") else tenant


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"not JSON: {e}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text} is no JSON object")
    return value


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="semproxy-kv bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="folder of a model, as transformers writes it")
    p.add_argument("--text", nargs="+", required=True, help="files of text that prompts are made of")
    p.add_argument("--dtype", default="bfloat16")
    p.add_argument("--tokens", type=int, nargs="*", default=[2048, 7168])
    p.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16])
    p.add_argument("--ratios", nargs="+", default=["by2", "by4"], help="tenants of the policy; without --policy: by2, by4, by8")
    p.add_argument(
        "--policy", type=Path, help="file of a policy whose tenants are measured, with headWeights of `semproxy calibrate` for one"
    )
    p.add_argument("--kv-bytes", type=int, default=4 << 30)
    p.add_argument("--held", type=int, default=0, help="requests that ask for the KV space together; 0: not measured")
    p.add_argument("--first-token", action="store_true", help="the time to the first token too, exactly and with compression")
    p.add_argument(
        "--tasks", type=Path, help="file of questions about texts (semproxy_kv/vllm/recall.py), asked on the full KV and on cores"
    )
    p.add_argument("--importance", action="store_true", help="let the engine read the texts of --tasks again before the questions")
    p.add_argument("--cases", type=int, default=12, help="how many texts of it")
    p.add_argument(
        "--connector", type=json_object, default={}, metavar="JSON",
        help="settings of the connector (semproxy_kv/vllm/settings.py) over those of the bench: "
        """'{"page_first": 896}'; '{"shared_memory": ""}' sends pages in messages, in parts of some layers""",
    )  # fmt: skip
    p.add_argument("--eager", action="store_true", help="no torch.compile")
    p.add_argument("--quick", action="store_true", help="1 and 4 requests at once, 4x")
    args = p.parse_args(argv)
    if not args.policy and (unknown := set(args.ratios) - {"by2", "by4", "by8"}):
        p.error(f"--ratios: {', '.join(sorted(unknown))}: without --policy there are by2, by4 and by8")
    if args.quick:
        args.batch, args.ratios, args.eager = [1, 4], ["by4"], True
    return args
