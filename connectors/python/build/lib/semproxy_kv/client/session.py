"""A socket to the sidecar of this machine, by which regions are attached and the descriptors of pages go (docs/reference/page-plane.md)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import SemproxyError
from .allocator import Allocator
from .reply import UNREACHABLE, check

HEADER = "Semproxy-Shm"
BLOCK = 64  # bytes of a block's header
ATTACH_TIME = 2.0  # for making a session, seconds
MAX_PACKET = 4096


class Region:
    """A sealed memfd that the sidecar has attached."""

    def __init__(self, size: int) -> None:
        import fcntl

        self.fd = os.memfd_create("semproxy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        except BaseException:
            os.close(self.fd)
            raise
        self.size = size
        self.name = ""
        self.parts = Allocator(size)
        self.condemned = False  # no new pages; dropped when the last part is given back

    def write(self, offset: int, generation: int, content: bytes) -> None:
        # The generation first: who still reads the block's old content must see that it changed.
        os.pwrite(self.fd, generation.to_bytes(8, "little") + bytes(BLOCK - 8), offset)
        view, at = memoryview(content), offset + BLOCK
        while view:
            n = os.pwrite(self.fd, view, at)
            view, at = view[n:], at + n

    def read(self, where: dict[str, Any], offset: int, room: int) -> bytes:
        """The reply in the block at offset, as the sidecar says where it lies."""
        length = where["length"]
        if where["offset"] != offset or not 0 <= length <= room:
            raise ValueError("the reply is not in the block that was set aside for it")
        body = os.pread(self.fd, length, offset + BLOCK)
        if len(body) != length or zlib.crc32(body) != where.get("crc32", zlib.crc32(body)):
            raise ValueError("the reply is not what its checksum says")
        return body


async def hear(sock: socket.socket) -> dict[str, Any]:
    """The next packet."""
    packet = await asyncio.get_running_loop().sock_recv(sock, MAX_PACKET)
    if not packet:
        raise ConnectionError("the sidecar closed the socket")
    said: dict[str, Any] = json.loads(packet)
    return said


def accepted(said: dict[str, Any]) -> dict[str, Any]:
    if "code" in said:
        raise SemproxyError(said["code"], said.get("error", ""))
    return said


class Session:
    """A socket to the sidecar and the region that it was given. One task reads what comes: answers in order, those of pages
    when they are done."""

    def __init__(self, sock: socket.socket, hello: dict[str, Any], prove: Callable[[Session], Awaitable[None]]) -> None:
        self.sock = sock
        self.instance: str = hello["instance"]
        self.challenge: str = hello["challenge"]
        self.max_region: int = hello["max_region"]
        self.generation = itertools.count(1)
        self.region: Region | None = None
        self.ended = False
        self._prove = prove
        self._most: int = hello.get("pages", 0)  # pages under way by the socket; an older sidecar takes none
        self._lasts: float = hello.get("proof_ms", 0) / 1000
        self._proved = self._again = time.monotonic()  # the last proof; and when the next may begin
        self._proving: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._answers: deque[asyncio.Future[dict[str, Any]]] = deque()
        self._pages: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            while True:
                said = await hear(self.sock)
                waits = self._pages.pop(said["id"], None) if "id" in said else self._answers.popleft()
                if waits and not waits.done():
                    waits.set_result(said)
        self.ended = True
        self._fail()

    def _fail(self) -> None:
        for waits in [*self._answers, *self._pages.values()]:
            if not waits.done():
                waits.set_exception(ConnectionError("the sidecar's socket has ended"))
                waits.exception()  # whoever no longer waits need not hear of it

    async def demand(self, what: dict[str, Any], fd: int | None = None) -> dict[str, Any]:
        if self.ended:
            raise ConnectionError("the sidecar's socket has ended")
        packet, answer = json.dumps(what).encode(), asyncio.get_running_loop().create_future()
        if fd is None:
            self.sock.send(packet)
        else:
            socket.send_fds(self.sock, [packet], [fd])
        self._answers.append(answer)
        return accepted(await asyncio.wait_for(answer, ATTACH_TIME))

    async def exchange(self, headers: dict[str, str], deadline: float) -> tuple[bytes, dict[str, str]] | None:
        """Send a page's headers by the socket and wait for the reply. None: they must go over NATS, nothing was sent."""
        if not self._may():
            return None
        page = next(self._ids)
        packet = json.dumps({"op": "page", "id": page, "headers": headers}).encode()
        if len(packet) > MAX_PACKET:
            return None
        try:
            self.sock.send(packet)
        except BlockingIOError:  # its buffer is full
            return None
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pages[page] = answer  # until the sidecar has answered, also where nobody waits any more
        try:
            said = await asyncio.wait_for(answer, max(deadline - time.monotonic(), 0.001))
        except asyncio.TimeoutError:
            raise SemproxyError("deadline", "no reply came in time", retryable=True) from None
        except ConnectionError as e:
            raise SemproxyError(UNREACHABLE, str(e), retryable=True) from None
        body, answered = said.get("body", "").encode(), said.get("headers", {})
        check(answered, body)
        return body, answered

    def _may(self) -> bool:
        """Whether a page may go by the socket: the proof whose it is must not be too old. It is made again in time."""
        now = time.monotonic()
        age = now - self._proved
        if age > self._lasts / 2 and now > self._again:
            self._again = now + self._lasts / 10
            self._proving = asyncio.ensure_future(self.prove())
            self._proving.add_done_callback(lambda t: t.cancelled() or t.exception())
        return not self.ended and age <= self._lasts and len(self._pages) < self._most

    async def prove(self) -> None:
        """Show over NATS whose the socket is."""
        began = time.monotonic()
        await self._prove(self)
        self._proved = began

    def close(self) -> None:
        self.ended = True
        self._reader.cancel()
        if self._proving:
            self._proving.cancel()
        if self.sock.fileno() >= 0:
            self._reader.get_loop().remove_reader(self.sock.fileno())
        self.sock.close()
        self._fail()
        if self.region and not self.region.condemned:
            os.close(self.region.fd)
            self.region.condemned = True
        self.region = None
