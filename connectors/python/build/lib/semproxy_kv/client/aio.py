"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time

import nats.aio.client
import nats.errors

from ..errors import SemproxyError
from . import trace
from .memory import Memory
from .options import Options, Result
from .reply import TOO_LARGE, UNREACHABLE, check, fault

DEFAULT_MOST = 64 << 20  # bytes of a page that a sidecar takes unless it is configured otherwise
LEARN_TIME = 2.0  # seconds to wait for what it says of that


class AsyncClient:
    """Sends the pages of one tenant. Make it with connect(), end it with close(). Of one event loop, for any number of
    tasks. A connection that was lost is made anew by itself; pages that wait for a reply are then sent again."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._nc = nats.aio.client.Client()
        self._up = asyncio.Event()
        self._waiting: dict[asyncio.Future[SemproxyError], str] = {}  # to their subjects; a result ends the attempt
        self._memory = Memory(self._send, options) if options.shared_memory else None
        self._most = 0  # bytes of a page that the sidecar takes; 0: it was not asked
        self.page_tensors: tuple[str, ...] = ()  # names of a page's tensors that it takes, as far as it has said

    @staticmethod
    async def connect(url: str, options: Options) -> AsyncClient:
        """Connect to a NATS server (several: separated by commas). Raises "unreachable" when none answers in time."""
        client = AsyncClient(options)
        settings = {
            "servers": [part.strip() for part in url.split(",")],
            "name": "semproxy_kv",
            "error_cb": client._on_error,
            "disconnected_cb": client._on_lost,
            "reconnected_cb": client._on_up,
            "closed_cb": client._on_lost,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
            "pending_size": 64 << 20,
        }
        if options.private_inbox:
            settings["inbox_prefix"] = f"_INBOX.{options.tenant}"
        try:
            await asyncio.wait_for(client._nc.connect(**(settings | options.connect)), options.timeout)
        except (OSError, asyncio.TimeoutError, nats.errors.Error) as e:
            last = client._nc.last_error or e
            await client._disconnect()
            kind = "credentials" if "uthorization" in str(last) else "address"
            raise SemproxyError(UNREACHABLE, f"no NATS server answers; check its {kind} ({type(last).__name__})") from None
        client._up.set()
        return client

    async def close(self) -> None:
        """End the client and its connection. Calls that are under way fail."""
        if self._memory:
            self._memory.close()
        await self._disconnect()
        self._fail_all(SemproxyError(UNREACHABLE, "the connection was closed by this program"))

    async def _disconnect(self) -> None:
        with contextlib.suppress(OSError, nats.errors.Error):  # nats-py lets the socket's error through when the server has just died
            await self._nc.close()

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message that the NATS server takes."""
        return int(self._nc.max_payload)

    @property
    def max_page(self) -> int:
        """Bytes of the largest page that can be sent, as far as it is known: learn() asks the sidecar for its own bound. A
        message less room for its headers, or a third of the shared memory."""
        sent = self.max_payload - 2048
        if self._memory:
            sent = max(sent, self._memory.region_bytes // 3)
        return min(sent, self._most or DEFAULT_MOST)

    async def learn(self) -> int:
        """max_page when the sidecar has said what it takes. It is asked once; a sidecar that does not answer costs a moment."""
        if not self._most:
            with contextlib.suppress(SemproxyError, ValueError, AttributeError):
                deadline = time.monotonic() + min(LEARN_TIME, self.options.timeout)
                body, _ = await self._send(f"kv.{self.options.tenant}.v1.stat", {}, b"", deadline)
                said = json.loads(body)
                self._most = int(said.get("max_page_bytes") or DEFAULT_MOST)
                self.page_tensors = tuple(said.get("page_tensors") or ())
            if self._memory:
                await self._memory.open()
        return self.max_page

    async def compress(self, page: bytes) -> Result:
        """Send one page and return its cores, both as blobs."""
        return await self._request("compress", page)

    async def get(self, name: str) -> Result:
        """The object of that name."""
        if not name:
            raise SemproxyError("not_found", "the name of an object must not be empty")
        return await self._request("get", name.encode())

    async def stat(self) -> Result:
        """The tenant's state, as JSON."""
        return await self._request("stat", b"")

    async def _request(self, op: str, body: bytes) -> Result:
        began = time.monotonic()
        subject = f"kv.{self.options.tenant}.v1.{op}"
        headers = (self.options.trace or trace.current)()
        attempt = 0
        while True:
            attempt += 1
            try:
                reply, answer, shared = await self._attempt(op, subject, headers, body)
                return Result(reply, answer, attempt, time.monotonic() - began, shared)
            except SemproxyError as e:
                e.attempts = attempt
                if e.code == TOO_LARGE.code:
                    self._most = 0  # the sidecar's bound is another one now
                if not e.retryable or attempt >= self.options.max_attempts:
                    raise
                await asyncio.sleep(self.options.backoff.pause(attempt, e.after))

    async def _attempt(self, op: str, subject: str, headers: dict[str, str], body: bytes) -> tuple[bytes, dict[str, str], bool]:
        deadline = time.monotonic() + self.options.timeout
        try:
            await asyncio.wait_for(self._up.wait(), self.options.timeout)
        except asyncio.TimeoutError:
            raise SemproxyError(UNREACHABLE, "the NATS server is not reachable", retryable=True) from None
        if self._memory and op == "compress":
            done = await self._memory.attempt(headers, body, deadline, wait=len(body) > self.max_payload)
            if done is not None:
                return (*done, True)
            if len(body) > self.max_payload:
                raise SemproxyError(UNREACHABLE, "the page fits shared memory only, which is not there now", retryable=True)
        return (*await self._send(subject, headers, body, deadline), False)

    async def _send(self, subject: str, headers: dict[str, str], body: bytes, deadline: float) -> tuple[bytes, dict[str, str]]:
        """Send body over NATS and wait for its reply until deadline (time.monotonic)."""
        size = len(body) + 16 + sum(len(k) + len(v.encode()) + 4 for k, v in headers.items())
        if size > self.max_payload:
            raise SemproxyError(TOO_LARGE.code, TOO_LARGE.message)
        ended: asyncio.Future[SemproxyError] = asyncio.get_running_loop().create_future()
        self._waiting[ended] = subject
        request = asyncio.ensure_future(
            self._nc.request(subject, body, timeout=max(deadline - time.monotonic(), 0.001), headers=headers or None)
        )
        try:
            await asyncio.wait({request, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not request.done():
                raise ended.result()
            try:
                msg = request.result()
            except Exception as e:
                raise fault(e) from e
            check(msg.headers, msg.data)
            return msg.data, dict(msg.headers or {})
        finally:
            del self._waiting[ended]
            request.cancel()
            ended.cancel()

    def _fail_all(self, e: SemproxyError, subject: str | None = None) -> None:
        for waiting, its in list(self._waiting.items()):
            if not waiting.done() and subject in (None, its):
                waiting.set_result(SemproxyError(e.code, e.message, retryable=e.retryable))

    async def _on_lost(self) -> None:
        self._up.clear()
        self._fail_all(SemproxyError(UNREACHABLE, "the connection was lost", retryable=True))

    async def _on_up(self) -> None:
        self._up.set()

    async def _on_error(self, e: Exception) -> None:
        """NATS tells of a refused publish only here."""
        denied = re.search(r'[Pp]ermissions [Vv]iolation for [Pp]ublish to "([^"]+)"', str(e))
        if denied:
            refusal = SemproxyError("policy.denied", "the NATS server does not let this user send as this tenant")
            for subject in set(self._waiting.values()):
                if subject.lower() == denied[1].lower():
                    self._fail_all(refusal, subject)
