"""vLLM's own scheduler, KV cache manager and connector factory, with a model that writes keys which can be told apart.

The key of a token is a random vector of its id, rotated to its position, and so is its value, unrotated: what stands in a slot
can be checked. Each step checks every slot that a running request attends to. The cache is that of vLLM's own backend: with a package
for CPUs its C++ kernel packs keys and values as it likes, without one a function of torch does; or it is that of --attention-backend
CUSTOM, which adds a bias.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from conftest import MODEL
from vllm import SamplingParams
from vllm.config import KVTransferConfig, VllmConfig, set_current_vllm_config
from vllm.distributed.kv_transfer.kv_connector.factory import KVConnectorFactory
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.hashing import sha256
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from semproxy_kv.vllm.attention import SemproxyImpl

LAYERS, HEADS, DIM, BLOCK = 5, 2, 64, 16
PLACEHOLDER = 1279
KERNELS = hasattr(torch.ops._C, "cpu_attn_reshape_and_cache")  # those of a package for CPUs
EIGHT_BITS = KERNELS and (torch.cpu._is_avx512_supported() or torch.cpu._is_amx_tile_supported())  # where vLLM refuses none of them
SCALES = {"isa": "vec16", "_k_scale_float": 1.0, "_v_scale_float": 1.0}
init_none_hash(sha256)


def engine_config(
    url: str,
    *,
    async_scheduling: bool = False,
    custom: bool = False,
    live: bool = False,
    seqs: int = 4,
    overrides: dict[str, Any] | None = None,
    **extra: Any,
) -> VllmConfig:
    """vLLM's configuration of the small trained model, with the connector."""
    config = EngineArgs(
        model=str(MODEL), skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=1024, block_size=BLOCK,
        max_num_seqs=seqs, max_num_batched_tokens=512, kv_cache_memory_bytes=1 << 20,
        kv_transfer_config=KVTransferConfig(
            kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
            kv_load_failure_policy="recompute",
            kv_connector_extra_config={"url": url, "tenant": "window", "min_tokens": 64, "placeholder": PLACEHOLDER, **extra},
        ),
        **(overrides or {}),
    ).create_engine_config()  # fmt: skip
    if custom:
        config.attention_config.backend = AttentionBackendEnum.CUSTOM
    if live:
        config.scheduler_config.scheduler_cls = "semproxy_kv.vllm.Scheduler"
    config.scheduler_config.async_scheduling = async_scheduling  # the CPU platform turns it off; its scheduler is what matters here
    return config


def cache_config(blocks: int, heads: int = HEADS) -> KVCacheConfig:
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=heads, head_size=DIM, dtype=torch.float32)
    names = [f"model.layers.{i}.self_attn.attn" for i in range(LAYERS)]
    return KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(names, spec)])


class Plain:
    """A backend that keeps keys and values apart, slots before heads, where there is no C++ kernel to write with."""

    def do_kv_cache_update(self, layer: Any, key: Any, value: Any, kv_cache: Any, slot_mapping: Any) -> None:
        used = slot_mapping >= 0
        at = slot_mapping[used].long()
        for half, data in enumerate((key, value)):
            kv_cache.view(kv_cache.shape[0], kv_cache.shape[1], BLOCK, 2, DIM)[at // BLOCK, :, at % BLOCK, half] = data[used]


class Model:
    """The keys and values of tokens, before rotation: [ids, layers, heads, dims]."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(7)
        self.k, self.v = torch.randn(2, 1280, LAYERS, HEADS, DIM, generator=g)

    def keys(self, rope: Any, ids: list[int], positions: list[float]) -> torch.Tensor:
        """[tokens, layers, heads, dims]"""
        angle = torch.tensor(positions, dtype=torch.float64)[:, None] * torch.tensor(rope.frequencies(), dtype=torch.float64)
        cos, sin = (f(angle).float()[:, None, None] for f in (torch.cos, torch.sin))
        u, v = self.k[ids].chunk(2, -1)
        return torch.cat([u * cos - v * sin, v * cos + u * sin], -1)


@dataclass
class State:
    """A request as the worker knows it."""

    tokens: list[int]
    blocks: list[int]


class Worker:
    """The worker's connector with real tensors, as vLLM's model runner drives it."""

    def __init__(self, config: VllmConfig, cache: KVCacheConfig, model: Model, rank: int = 0) -> None:
        heads = cache.kv_cache_groups[0].kv_cache_spec.num_kv_heads
        self.heads = slice(rank * heads, (rank + 1) * heads) if heads < HEADS else slice(0, HEADS)
        self.model = model
        names = cache.kv_cache_groups[0].layer_names
        self.custom = getattr(config.attention_config.backend, "name", "") == "CUSTOM"
        self.layers = {n: SimpleNamespace(impl=self._impl(config, heads), num_heads=4 * heads // HEADS, **SCALES) for n in names}
        config.compilation_config.static_forward_context.clear()
        config.compilation_config.static_forward_context.update(self.layers)
        config.parallel_config.rank = rank
        self.connector: Any = KVConnectorFactory.create_connector(config, KVConnectorRole.WORKER, cache)
        room = torch.full((len(names), cache.num_blocks, heads, BLOCK, 2 * DIM), float("nan"))  # one for all layers, as in vLLM
        self.caches = dict(zip(names, room, strict=True))
        self.connector.register_kv_caches(self.caches)
        self.rope = self.connector.worker.shape.rope

    def _impl(self, config: VllmConfig, heads: int) -> Any:
        args = (4 * heads // HEADS, DIM, 0.125, heads, None, None, "auto")
        with set_current_vllm_config(config):
            impl: Any = SemproxyImpl(*args) if self.custom else CPUAttentionBackendImpl(*args) if KERNELS else Plain()
        impl.forward = lambda *args, **kwargs: None
        return impl

    def begin(self, meta: Any) -> None:
        self.connector.handle_preemptions(meta)
        self.connector.bind_connector_metadata(meta)

    def write(self, ids: list[int], positions: list[int], slots: list[int]) -> None:
        """The forward pass, as far as the KV cache goes."""
        ids, positions, where = [*ids, 0], [*positions, 0], torch.tensor([*slots, -1])  # padded, as vLLM does
        keys = self.model.keys(self.rope, ids, [float(p) for p in positions])[:, :, self.heads]
        values = self.model.v[ids][:, :, self.heads]
        for i, (name, layer) in enumerate(self.layers.items()):
            layer.impl.do_kv_cache_update(layer, keys[:, i].contiguous(), values[:, i].contiguous(), self.caches[name], where)
            query = keys[:, i].repeat_interleave(2, 1)
            layer.impl.forward(layer, query, keys[:, i], values[:, i], self.caches[name], SimpleNamespace(slot_mapping=where), None)

    def end(self, finished: set[str], started: bool = False) -> KVConnectorOutput:
        if not started:
            self.connector.start_load_kv(None)
        self.connector.wait_for_save()
        r = self.connector.get_transfer_results(finished)
        errors = self.connector.get_block_ids_with_load_errors()
        news = self.connector.build_connector_worker_meta()
        self.connector.clear_connector_metadata()
        return KVConnectorOutput(
            finished_sending=r.finished_sending,
            finished_recving=r.finished_recving,
            failed_recving=r.failed_recving,
            invalid_block_ids=errors,
            kv_connector_worker_meta=news,
        )

    def slots(self, blocks: list[int], n: int) -> list[int]:
        return [blocks[p // BLOCK] * BLOCK + p % BLOCK for p in range(n)]

    def read(self, blocks: list[int], n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys, values [layers, heads, n, dims] and bias [layers, heads, n] of the first n slots."""
        layers = self.connector.worker.layers
        read = [layer.layout.read(torch.tensor(blocks), BLOCK) for layer in layers]
        keys, values = (torch.stack([of[i][:n].transpose(0, 1) for of in read]) for i in range(2))
        where = torch.tensor(self.slots(blocks, n))
        bias = torch.stack([torch.zeros(keys.shape[1], n) if layer.bias is None else layer.bias[where].T for layer in layers])
        return keys, values, bias


class Engine:
    """Scheduler and workers, step by step."""

    def __init__(self, config: VllmConfig, blocks: int = 200) -> None:
        self.model = Model()
        self.cache = cache_config(blocks)
        config.cache_config.num_gpu_blocks = blocks
        kind = config.scheduler_config.get_scheduler_cls()
        self.scheduler: Any = kind(
            vllm_config=config, kv_cache_config=self.cache, log_stats=True,
            structured_output_manager=StructuredOutputManager(config), block_size=BLOCK,
        )  # fmt: skip
        self.worker = Worker(config, self.cache, self.model)
        self.states: dict[str, State] = {}
        self.requests: dict[str, Request] = {}
        self.computed: dict[str, list[int]] = {}  # ids of the tokens that were computed, of each request
        self.answers: dict[str, list[int]] = {}  # what the frontend was told
        self.outcomes: dict[str, Any] = {}  # kv_transfer_params that came with the last token
        self.preemptions = self.checks = 0
        self.seen: set[Any] = set()  # requests whose cores have been checked where they are
        self.outputs: list[tuple[Any, ModelRunnerOutput]] = []  # async: one step is under way

    @property
    def side(self) -> Any:
        return self.scheduler.connector.scheduler

    def add(self, name: str, prompt: list[int], new: int = 4, *, params: dict[str, Any] | None = None, **sampling: Any) -> Request:
        p = SamplingParams(max_tokens=new, ignore_eos=True, extra_args={"kv_transfer_params": params} if params else None, **sampling)
        r = Request(name, list(prompt), p, None, block_hasher=get_request_block_hasher(BLOCK, sha256))
        self.requests[name] = r
        self.computed[name], self.answers[name] = [], []
        self.scheduler.add_request(r)
        return r

    def step(self) -> Any:
        """One step of the engine; with the asynchronous scheduler its output is taken one step later."""
        out = self.scheduler.schedule()
        self.outputs.append((out, self._execute(out)))
        if len(self.outputs) > self.scheduler.vllm_config.max_concurrent_batches - 1:
            self.update()
        return out

    def update(self) -> None:
        for of in self.scheduler.update_from_output(*self.outputs.pop(0)).values():
            for o in of.outputs:
                self.answers[o.request_id] += o.new_token_ids
                if o.kv_transfer_params is not None:
                    self.outcomes[o.request_id] = o.kv_transfer_params

    def _execute(self, out: Any) -> ModelRunnerOutput:
        self.worker.begin(out.kv_connector_metadata)
        if out.has_sync_kv_loads:
            self.worker.connector.start_load_kv(None)
        for new in out.scheduled_new_reqs:
            self.states[new.req_id] = State(list(new.prompt_token_ids), list(new.block_ids[0]))
        cached = out.scheduled_cached_reqs
        starts = {new.req_id: new.num_computed_tokens for new in out.scheduled_new_reqs}
        for i, name in enumerate(cached.req_ids):
            starts[name] = cached.num_computed_tokens[i]
            ids = list(cached.new_block_ids[i][0]) if cached.new_block_ids[i] else []
            state = self.states[name]
            resumed = name in cached.resumed_req_ids
            self.preemptions += resumed
            state.blocks = ids if resumed else state.blocks + ids
        names, sampled = list(out.num_scheduled_tokens), []
        passing: list[tuple[int, int, int]] = []  # token, position, slot: one forward pass for all requests of the step
        for name, n in out.num_scheduled_tokens.items():
            state, at = self.states[name], starts[name]
            positions = list(range(at, at + n))
            ids = [state.tokens[p] for p in positions]
            assert PLACEHOLDER not in ids, f"{name}: placeholders were computed as if they were text"
            self.computed[name] += ids
            passing += [(i, p, state.blocks[p // BLOCK] * BLOCK + p % BLOCK) for i, p in zip(ids, positions, strict=True)]
        if passing:
            self.worker.write(*(list(of) for of in zip(*passing, strict=True)))
        for name, n in out.num_scheduled_tokens.items():
            state, at = self.states[name], starts[name]
            self.check(name, at + n)
            token = (at + n) * 7 % 1000 + 1
            done = at + n >= len(state.tokens)
            sampled.append([token] if done else [])
            if done:
                state.tokens.append(token)
        transferred = self.worker.end(out.finished_req_ids, started=out.has_sync_kv_loads)
        return ModelRunnerOutput(
            req_ids=names, req_id_to_index={n: i for i, n in enumerate(names)}, sampled_token_ids=sampled, logprobs=None,
            prompt_logprobs_dict={}, pooler_output=None, kv_connector_output=transferred,
        )  # fmt: skip

    def check(self, name: str, end: int) -> None:
        """Every slot that the request attends to: cores have their bias, tokens have none, and each key is where it belongs."""
        state, t = self.states[name], self.side._tracked.get(name)
        keys, values, bias = self.worker.read(state.blocks, end)
        slots = t.plan.slots if t and t.plan else 0
        assert bool((bias[..., slots:] == 0).all()), f"{name}: a token has the bias of a core that was there before"
        assert bool(keys[..., slots:, :].isfinite().all())
        self.checks += 1
        where = name, tuple(state.blocks[: slots // BLOCK])
        if slots and (where not in self.seen or self.checks % 40 == 0):  # when they are new, and now and then
            self.seen.add(where)
            for layer in range(LAYERS):
                for head in range(HEADS):
                    self.check_cores(t, layer, head, keys[layer, head, :slots], values[layer, head, :slots], bias[layer, head, :slots])
        ids = state.tokens[slots:end]
        want = self.model.keys(self.worker.rope, ids, [float(p) for p in range(slots, end)]).permute(1, 2, 0, 3)
        assert torch.allclose(keys[..., slots:, :], want, atol=2e-3), f"{name}: keys"
        values_of = self.model.v[ids][:, :, self.worker.heads].permute(1, 2, 0, 3)
        assert torch.equal(values[..., slots:, :], values_of), f"{name}: values"

    def check_cores(self, t: Any, layer: int, head: int, keys: Any, values: Any, bias: Any) -> None:
        """The method window keeps tokens as they are: a core is a token's key at its own distance, and its value."""
        used = bias.isfinite()
        n = int(used.sum())
        assert n > 0
        assert bool(used[:n].all()), "padding stands behind the cores"
        assert bool((keys[n:] == 0).all())
        if t.tenant != "window":  # cores of merged tokens: they stand for every token
            assert abs(float(bias[:n].exp().sum()) - t.plan.tokens) < 0.01
            return
        prompt = (t.original.prompt + t.live.folded)[
            : t.plan.tokens
        ]  # an answer may say a token again, so that only value and key tell which it is
        wanted_keys = self.model.keys(self.worker.rope, prompt, [float(p + t.plan.shift) for p in range(len(prompt))])[:, layer, head]
        wanted_values = self.model.v[prompt, layer, head]
        found = (torch.cdist(values[:n], wanted_values) + torch.cdist(keys[:n], wanted_keys)).argmin(-1).tolist()
        assert found == sorted(set(found))
        assert torch.allclose(values[:n], wanted_values[found], atol=1e-5)
        assert torch.allclose(keys[:n], wanted_keys[found], atol=2e-3)

    def run(self, until: Callable[[], bool] | None = None, seconds: float = 300.0) -> None:
        """Step until that holds, or until the scheduler has nothing to do."""
        deadline = time.monotonic() + seconds
        while not until() if until else (self.scheduler.has_requests() or self.outputs):
            assert time.monotonic() < deadline, "the engine does not come to an end"
            if not self.scheduler.has_requests() and self.outputs:
                self.update()
                continue
            out = self.step()
            if not out.total_num_scheduled_tokens:
                time.sleep(0.001)  # as vLLM's engine does

    def generate(self, name: str, prompt: list[int], new: int = 4, **kw: Any) -> Request:
        """A request from its beginning to its end, and until its pages are stored."""
        r = self.add(name, prompt, new, **kw)
        self.run()
        self.settle()
        return r

    def settle(self) -> None:
        """Wait until what is on its way has arrived."""
        deadline = time.monotonic() + 30
        while self.worker.connector.worker._on_the_way:
            assert time.monotonic() < deadline, "pages are not answered"
            time.sleep(0.005)

    def assert_nothing_is_left(self) -> None:
        s = self.scheduler
        assert not s.requests
        assert not s.running
        assert not len(s.waiting)
        assert not len(s.kv_holding_waiting)
        assert not s.finished_recving_kv_req_ids
        assert not s.failed_recving_kv_req_ids
        pool = s.kv_cache_manager.block_pool
        assert pool.get_num_free_blocks() == pool.num_gpu_blocks - 1, "blocks were lost"
        assert all(b.ref_cnt == 0 for b in pool.blocks if not b.is_null)
        side, worker = self.side, self.worker.connector.worker
        assert not side._tracked
        assert not side._meta.loads
        assert not side._meta.saves
        assert not side._due
        assert not worker._loading
        assert not worker._pinned
        assert not worker._next
        assert not worker._ready
        assert not worker._pages
        assert not worker._tails
        assert not worker._copying
        assert not worker._ended
        assert not worker.queries._kept

    def close(self) -> None:
        self.worker.connector.shutdown()
        self.scheduler.connector.shutdown()


FINISHED = (RequestStatus.FINISHED_LENGTH_CAPPED, RequestStatus.FINISHED_STOPPED)
__all__ = ["BLOCK", "FINISHED", "PLACEHOLDER", "Engine", "Worker", "cache_config", "engine_config"]
