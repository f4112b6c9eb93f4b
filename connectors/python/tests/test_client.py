"""The client against a real sidecar: what may pass is sent again, what cannot comes back with its code."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import DEMO, POLICY, missing

from semproxy_kv import AsyncClient, Backoff, Client, LocalSidecar, Options, SemproxyError
from semproxy_kv.client.allocator import ALIGN, Allocator
from semproxy_kv.wire import Cores

PAGE = (DEMO / "kjv.page.safetensors").read_bytes()
QUICK = Backoff(0.01, 0.05)


@pytest.fixture
def own(binary: str) -> Iterator[LocalSidecar]:
    with LocalSidecar(POLICY) as s:
        yield s


def test_a_page_comes_back_as_cores(connect: Any) -> None:
    result = connect("assigned").compress(PAGE)
    cores = Cores.decode(result.body)
    assert result.outcome in ("compressed", "stored")
    assert (cores.tokens, cores.grid()) == (640, (5, 2))
    assert 0.249 <= cores.ratio <= 0.25  # of all heads together; the budget is kept, and missed by a few slots at most
    assert cores.assign is not None
    assert cores.encode() == result.body
    assert connect("assigned").get(result.header("semproxy-object")).body
    assert json.loads(connect("assigned").stat().body)["tenant"] == "assigned"


def test_evictions_say_what_they_dropped(connect: Any) -> None:
    cores = Cores.decode(connect("window").compress(PAGE).body)
    assert cores.dropped is not None
    assert int(cores.dropped.numpy().sum()) == 10 * 480


def test_eight_bit_cores_have_scales(connect: Any) -> None:
    cores = Cores.decode(connect("half8").compress(PAGE).body)
    assert cores.k.dtype == "F8_E4M3"
    assert cores.k_scale is not None


def test_final_errors_come_back_at_once(connect: Any) -> None:
    with pytest.raises(SemproxyError) as e:
        connect("quarter").compress(PAGE[:-5])
    assert e.value.code.startswith("page.")
    assert (e.value.retryable, e.value.attempts) == (False, 1)
    with pytest.raises(SemproxyError, match="not_found"):
        connect("quarter").get("")


def test_a_tenant_that_sends_too_fast_waits_and_gets_through(connect: Any) -> None:
    client = connect("slow", backoff=QUICK)
    results = [f.result() for f in [client.submit(PAGE) for _ in range(5)]]
    assert len({r.header("Semproxy-Object") for r in results}) == 1
    assert max(r.attempts for r in results) > 1


def test_attempts_are_bounded_and_counted(connect: Any) -> None:
    client = connect("slow", max_attempts=1)
    refused = [e for f in [client.submit(PAGE) for _ in range(8)] if (e := f.exception())]
    assert refused
    e = refused[0]
    assert isinstance(e, SemproxyError)
    assert (e.code, e.retryable, e.attempts) == ("limit.rate", True, 1)


def test_a_page_too_large_for_a_message_is_not_sent(connect: Any) -> None:
    with pytest.raises(SemproxyError) as e:
        connect("quarter").compress(bytes(9 << 20))
    assert e.value.code == "page.too_large"


def test_the_trace_goes_on_in_the_sidecar(connect: Any) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    client = connect("quarter", trace=lambda: {"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    result = client.compress(PAGE)
    assert result.header("traceparent").split("-")[1] == trace


def test_the_current_span_of_opentelemetry_is_the_parent(connect: Any) -> None:
    try:
        from opentelemetry import trace
    except ImportError:
        missing("torch", "opentelemetry-api is not installed")
    span = trace.NonRecordingSpan(trace.SpanContext(0x1234, 0x56, is_remote=False, trace_flags=trace.TraceFlags(1)))
    client = connect("quarter")
    with trace.use_span(span):
        results = client.compress(PAGE), client.submit(PAGE).result()
    assert [r.header("traceparent").split("-")[1] for r in results] == [f"{0x1234:032x}"] * 2


def test_nobody_answers() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(SemproxyError) as e:
        Client(f"nats://127.0.0.1:{port}", Options(tenant="a", timeout=0.5))
    assert e.value.code == "unreachable"


def test_no_sidecar_listens(own: LocalSidecar) -> None:
    async def work() -> None:
        client = await AsyncClient.connect(own.url, Options(tenant="quarter", backoff=QUICK, max_attempts=2, timeout=5))
        try:
            with pytest.raises(SemproxyError) as e:
                await client._request("nothing", b"")
            assert (e.value.code, e.value.attempts) == ("unreachable", 2)
        finally:
            await client.close()

    asyncio.run(work())


def test_a_sidecar_that_is_killed_and_comes_back(binary: str) -> None:
    """The page is sent again until a sidecar is there; the client makes its connection anew."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{s.getsockname()[1]}"
    first = LocalSidecar(POLICY, args=("--nats-embedded-listen", listen))
    with Client(first.url, Options(tenant="quarter", backoff=QUICK, max_attempts=10000, timeout=30)) as client:
        assert client.compress(PAGE).attempts == 1
        first.kill()
        future = client.submit(PAGE)
        first.close()
        with LocalSidecar(POLICY, args=("--nats-embedded-listen", listen)):
            assert Cores.decode(future.result(60).body).tokens == 640


def test_users_may_speak_as_themselves_only(binary: str, tmp_path: Any) -> None:
    users = tmp_path / "users.yaml"
    users.write_text("users:\n  - { name: a, password: p, tenant: quarter }\n  - { name: g, password: p, tenant: exact }\n")
    with LocalSidecar(POLICY, args=("--nats-embedded-users-file", str(users))) as s:

        def login(tenant: str, name: str) -> Client:
            login = {"user": name, "password": "p"}
            return Client(s.url, Options(tenant=tenant, private_inbox=True, timeout=10, max_attempts=2, connect=login))

        with login("quarter", "a") as mine:
            assert mine.compress(PAGE).outcome == "compressed"
        with pytest.raises(SemproxyError) as e:
            Client(s.url, Options(tenant="quarter", timeout=2, connect={"user": "a", "password": "wrong"}))
        assert e.value.code == "unreachable"
        with login("exact", "g") as other:
            other._client.options = Options(tenant="quarter")  # as a program that lies about its tenant would
            with pytest.raises(SemproxyError) as e:
                other.compress(PAGE)
            assert e.value.code == "policy.denied"


def test_pages_go_through_shared_memory(own: LocalSidecar, connect: Any) -> None:
    with own.client("quarter") as client:
        results = [f.result() for f in [client.submit(PAGE) for _ in range(8)]]
        assert all(r.shared for r in results)
        over_nats = Client(own.url, Options(tenant="quarter"))
        with over_nats:
            assert over_nats.compress(PAGE).body[-1000:] == results[0].body[-1000:]
        with pytest.raises(SemproxyError, match=r"page\."):
            client.compress(b"no page")
        assert client.compress(PAGE).shared  # the blocks of a refused page are used again


def test_descriptors_go_by_the_socket_while_the_proof_holds(own: LocalSidecar) -> None:
    with own.client("quarter") as client:
        sent: list[str] = []
        over_nats = client._client._send

        async def send(subject: str, *rest: Any) -> Any:
            sent.append(subject.split(".")[3])
            return await over_nats(subject, *rest)

        memory = client._client._memory
        assert memory is not None
        memory._send = send
        assert all(f.result().shared for f in [client.submit(PAGE) for _ in range(8)])
        assert sent == ["attach"]
        session = memory._session
        assert session is not None
        session._proved -= session._lasts * 0.6  # it is made again in time
        assert client.compress(PAGE).shared
        assert sent == ["attach", "attach"]
        while time.monotonic() - session._proved > session._lasts / 2:
            time.sleep(0.001)
        session._proved -= session._lasts * 2  # too late: over NATS, until the next has come
        session._again = time.monotonic() + 60
        assert client.compress(PAGE).shared
        assert sent == ["attach", "attach", "compress"]
        session._proved, session._most = time.monotonic(), 0  # as an older sidecar, which takes no pages by its socket
        assert client.compress(PAGE).shared
        assert sent[3:] == ["compress"]


def test_without_shared_memory_pages_go_in_their_messages(sidecar: LocalSidecar, connect: Any, tmp_path: Any) -> None:
    assert not connect("quarter", shared_memory=str(tmp_path / "nothing")).compress(PAGE).shared


def test_a_region_too_small_for_a_page_is_no_obstacle(sidecar: LocalSidecar, connect: Any) -> None:
    client = connect("quarter", shared_memory=sidecar.shared_memory, region_bytes=1 << 20)
    assert not client.compress(PAGE).shared


def test_a_sidecar_that_comes_back_is_attached_anew(binary: str, tmp_path: Any) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{s.getsockname()[1]}"
    path = str(tmp_path / "s.sock")
    args = ("--nats-embedded-listen", listen, "--shared-memory-socket", path)
    options = Options(tenant="quarter", shared_memory=path, backoff=QUICK, max_attempts=10000)
    first = LocalSidecar(POLICY, args=args)
    with Client(first.url, options) as client:
        assert client.compress(PAGE).shared
        first.kill()
        first.close()
        with LocalSidecar(POLICY, args=args):
            shared = threading.Event()
            for _ in range(200):  # over NATS until the next try to attach, at most a second later
                if client.compress(PAGE).shared:
                    shared.set()
                    break
            assert shared.is_set()


def test_parts_of_a_region_never_overlap() -> None:
    import random

    rng, a = random.Random(7), Allocator(1 << 20)
    out: dict[int, int] = {}
    for _ in range(5000):
        if out and rng.random() < 0.5:
            a.give(out.popitem()[0])
        elif (at := a.take(n := rng.randrange(1, 50000))) is not None:
            assert at % ALIGN == 0
            assert at + n <= 1 << 20
            assert all(at + n <= o or o + m <= at for o, m in out.items())
            out[at] = n
    for at in out:
        a.give(at)
    assert a.idle
    assert a.take(1 << 20) == 0


def test_pauses_grow_and_honour_the_server() -> None:
    b = Backoff(0.01, 0.1)
    for n, want in {1: 0.01, 2: 0.02, 5: 0.1, 1000: 0.1}.items():
        assert want <= b.pause(n, 0) <= want * 1.5
    assert 1 <= b.pause(1, 1) <= 1.5


def test_a_client_that_was_closed_says_so(sidecar: LocalSidecar) -> None:
    client = Client(sidecar.url, Options(tenant="quarter"))
    client.close()
    client.close()
    with pytest.raises(SemproxyError) as e:
        client.compress(PAGE)
    assert e.value.code == "unreachable"


def test_closing_succeeds_when_the_server_has_just_died(sidecar: LocalSidecar) -> None:
    client = Client(sidecar.url, Options(tenant="quarter"))
    nc, thread = client._client._nc, client._thread
    really = nc.close

    async def close() -> None:
        await really()
        raise ConnectionResetError("Connection lost")  # as asyncio says it when the socket ended before the last flush

    nc.close = close
    client.close()
    assert not thread.is_alive()


def test_options_that_cannot_work() -> None:
    for bad in ({"tenant": "a.b"}, {"tenant": ""}, {"tenant": "a", "timeout": 0}, {"tenant": "a", "max_attempts": 0}):
        with pytest.raises(ValueError):
            Options(**bad)
