"""The fast path: pages in memory shared with the sidecar of this machine (docs/page-plane.md). Linux."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import SemproxyError
from .allocator import Allocator
from .options import Options
from .reply import UNREACHABLE, Answered

HEADER = "Semproxy-Shm"
BLOCK = 64  # bytes of a block's header
ATTACH_TIME = 2.0  # for making a session, seconds
ATTACH_PAUSE = 1.0  # between failed attempts to make one; pages go over NATS meanwhile
MAX_PACKET = 4096

Send = Callable[[str, dict[str, str], bytes, float], Awaitable[tuple[bytes, dict[str, str]]]]


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


class Session:
    """A socket to the sidecar and the region that it was given."""

    def __init__(self, sock: socket.socket, hello: dict[str, Any]) -> None:
        self.sock = sock
        self.instance: str = hello["instance"]
        self.max_region: int = hello["max_region"]
        self.generation = itertools.count(1)
        self.region: Region | None = None
        self.lock = asyncio.Lock()  # one demand and its answer at a time
        self.ended = False

    @staticmethod
    async def hear(sock: socket.socket) -> dict[str, Any]:
        packet = await asyncio.get_running_loop().sock_recv(sock, MAX_PACKET)
        if not packet:
            raise ConnectionError("the sidecar closed the socket")
        said: dict[str, Any] = json.loads(packet)
        if "code" in said:
            raise SemproxyError(said["code"], said.get("error", ""))
        return said

    async def demand(self, what: dict[str, Any], fd: int | None = None) -> dict[str, Any]:
        async with self.lock:
            packet = json.dumps(what).encode()
            if fd is None:
                self.sock.send(packet)
            else:
                socket.send_fds(self.sock, [packet], [fd])
            return await asyncio.wait_for(self.hear(self.sock), ATTACH_TIME)

    def close(self) -> None:
        self.ended = True
        self.sock.close()
        if self.region and not self.region.condemned:
            os.close(self.region.fd)
            self.region.condemned = True
        self.region = None


class Memory:
    """A client's fast path: a session, made anew when it has ended. attempt() answers None where a page cannot go that
    way now; it then goes over NATS."""

    def __init__(self, send: Send, options: Options) -> None:
        self._send = send
        self._options = options
        self._session: Session | None = None
        self._next = 0.0
        self._opening = asyncio.Lock()

    async def attempt(self, headers: dict[str, str], page: bytes, deadline: float) -> tuple[bytes, dict[str, str]] | None:
        """Send a page; the reply, or None, or the error that a sidecar answered."""
        session = await self._open(deadline)
        if session is None or (region := session.region) is None:
            return None
        room = len(page) + len(page) // 4 + (64 << 10)
        taken = region.parts.take(BLOCK + len(page)), region.parts.take(BLOCK + room)
        uncertain = False
        try:
            if taken[0] is None or taken[1] is None:
                return None
            first, second = next(session.generation), next(session.generation)
            region.write(taken[0], first, page)
            region.write(taken[1], second, b"")
            d = {"region": region.name, "generation": first, "offset": taken[0], "length": len(page)}
            text = json.dumps(d | {"reply": {"generation": second, "offset": taken[1], "length": room}})
            subject = f"kv.{self._options.tenant}.v1.compress.{session.instance}"
            uncertain = True
            body, answer = await self._send(subject, headers | {HEADER: text}, b"", deadline)
            uncertain = False
            where = next((v for k, v in answer.items() if k.lower() == HEADER.lower()), None)
            if where is not None:
                body = self._read(region, json.loads(where), taken[1], room)
            return body, answer
        except Answered as e:
            uncertain = False
            if not e.code.startswith("shm."):
                raise
            if e.code == "shm.unknown_region":
                self._end(session)
            return None
        except SemproxyError as e:
            if e.code == UNREACHABLE:  # the sidecar may be gone, another may be there
                self._end(session)
                return None
            raise
        except (OSError, ValueError, KeyError):
            return None
        finally:
            await self._give_back(session, region, taken, uncertain)

    @staticmethod
    def _read(region: Region, where: dict[str, Any], offset: int, room: int) -> bytes:
        length = where["length"]
        if where["offset"] != offset or not 0 <= length <= room:
            raise ValueError("the reply is not in the block that was set aside for it")
        body = os.pread(region.fd, length, offset + BLOCK)
        if len(body) != length or zlib.crc32(body) != where.get("crc32", zlib.crc32(body)):
            raise ValueError("the reply is not what its checksum says")
        return body

    async def _give_back(self, session: Session, region: Region, taken: tuple[int | None, int | None], uncertain: bool) -> None:
        """Free both blocks. Where no answer came the sidecar may still use them: the region is used no more."""
        if uncertain and session.region is region:
            session.region = None
            region.condemned = True
        idle = region.parts.idle
        for offset in taken:
            if offset is not None:
                idle = region.parts.give(offset)
        if region.condemned and idle and not session.ended:
            os.close(region.fd)
            try:
                await session.demand({"op": "drop", "region": region.name})
            except (OSError, asyncio.TimeoutError, SemproxyError, ValueError):
                self._end(session)

    async def _open(self, deadline: float) -> Session | None:
        async with self._opening:
            now = time.monotonic()
            if self._session and not self._session.ended and self._session.region:
                return self._session
            if now < self._next:
                return None
            try:
                if self._session is None or self._session.ended:
                    self._session = await asyncio.wait_for(self._dial(deadline), ATTACH_TIME)
                await self._attach(self._session)
            except (OSError, asyncio.TimeoutError, SemproxyError, ValueError, KeyError):
                self.close()
                self._next = time.monotonic() + ATTACH_PAUSE
            return self._session

    async def _dial(self, deadline: float) -> Session:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, self._options.shared_memory)
            hello = await Session.hear(sock)
            if hello.get("semproxy") != 1:
                raise ValueError("the sidecar speaks another version of the protocol")
            session = Session(sock, hello)
            subject = f"kv.{self._options.tenant}.v1.attach.{session.instance}"
            await self._send(subject, {}, hello["challenge"].encode(), min(deadline, time.monotonic() + ATTACH_TIME))
        except BaseException:
            sock.close()
            raise
        return session

    async def _attach(self, session: Session) -> None:
        size = min(self._options.region_bytes, session.max_region)
        region = Region(size)
        try:
            region.name = (await session.demand({"op": "add", "size": size}, region.fd))["region"]
        except BaseException:
            os.close(region.fd)
            raise
        session.region = region

    def _end(self, session: Session) -> None:
        session.close()
        if self._session is session:
            self._session = None

    def close(self) -> None:
        """End the session; the sidecar forgets its regions."""
        if self._session:
            self._session.close()
            self._session = None
