"""The fast path: pages in memory shared with the sidecar of this machine (docs/reference/page-plane.md). Linux."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable

from ..errors import SemproxyError
from .options import Options
from .reply import UNREACHABLE, Answered
from .session import ATTACH_TIME, BLOCK, HEADER, Region, Session, accepted, hear

ATTACH_PAUSE = 1.0  # between failed attempts to make a session, seconds; pages go over NATS meanwhile
# Refusals by the socket that mean: send this descriptor over NATS.
NOT_BY_SOCKET = ("shm.pages", "shm.not_attached")

Send = Callable[[str, dict[str, str], bytes, float], Awaitable[tuple[bytes, dict[str, str]]]]


class _Full(Exception):
    """Other pages have the room."""


class Memory:
    """A client's fast path: a session, made anew when it has ended. attempt() answers None where a page cannot go that
    way now; it then goes over NATS."""

    def __init__(self, send: Send, options: Options) -> None:
        self._send = send
        self._options = options
        self._session: Session | None = None
        self._next = 0.0
        self._opening = asyncio.Lock()
        self._freed = asyncio.Event()  # set, and replaced, whenever room becomes free

    @property
    def region_bytes(self) -> int:
        """Bytes of the region that there is, or will be."""
        most = self._session.max_region if self._session else self._options.region_bytes
        return min(self._options.region_bytes, most)

    async def open(self) -> None:
        """Make the session now, if it can be made."""
        await self._open()

    async def attempt(
        self, headers: dict[str, str], page: bytes, deadline: float, *, wait: bool = False
    ) -> tuple[bytes, dict[str, str]] | None:
        """Send a page; the reply, or None, or the error that a sidecar answered. wait: where other pages have the room,
        until there is some."""
        while True:
            freed = self._freed
            try:
                return await self._attempt(headers, page, deadline)
            except _Full:
                if not wait:
                    return None
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(freed.wait(), max(deadline - time.monotonic(), 0.0))
                if time.monotonic() >= deadline:
                    return None

    async def _attempt(self, headers: dict[str, str], page: bytes, deadline: float) -> tuple[bytes, dict[str, str]] | None:
        session = await self._open()
        if session is None or (region := session.region) is None:
            return None
        room = len(page) + len(page) // 4 + (64 << 10)
        taken = region.parts.take(BLOCK + len(page)), region.parts.take(BLOCK + room)
        uncertain = False
        try:
            if taken[0] is None or taken[1] is None:
                if BLOCK + len(page) + BLOCK + room > region.size:
                    return None
                raise _Full
            first, second = next(session.generation), next(session.generation)
            region.write(taken[0], first, page)
            region.write(taken[1], second, b"")
            d = {"region": region.name, "generation": first, "offset": taken[0], "length": len(page)}
            text = json.dumps(d | {"reply": {"generation": second, "offset": taken[1], "length": room}})
            uncertain = True
            body, answer = await self._exchange(session, headers | {HEADER: text}, deadline)
            uncertain = False
            where = next((v for k, v in answer.items() if k.lower() == HEADER.lower()), None)
            if where is not None:
                body = region.read(json.loads(where), taken[1], room)
            return body, answer
        except Answered as e:
            uncertain = False
            if not e.code.startswith("shm.") and e.code != "reply.too_large":  # in a message there is room
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

    async def _exchange(self, session: Session, headers: dict[str, str], deadline: float) -> tuple[bytes, dict[str, str]]:
        """Send a descriptor by the session's socket, or over NATS where that is not possible now."""
        try:
            done = await session.exchange(headers, deadline)
        except Answered as e:
            if e.code not in NOT_BY_SOCKET:
                raise
            done = None
        return done or await self._send(f"kv.{self._options.tenant}.v1.compress.{session.instance}", headers, b"", deadline)

    async def _give_back(self, session: Session, region: Region, taken: tuple[int | None, int | None], uncertain: bool) -> None:
        """Free both blocks. Where no answer came the sidecar may still use them: the region is used no more."""
        if uncertain and session.region is region:
            session.region = None
            region.condemned = True
        idle = region.parts.idle
        for offset in taken:
            if offset is not None:
                idle = region.parts.give(offset)
        if all(offset is not None for offset in taken):
            self._freed.set()
            self._freed = asyncio.Event()
        if region.condemned and idle and not session.ended:
            os.close(region.fd)
            try:
                await session.demand({"op": "drop", "region": region.name})
            except (OSError, asyncio.TimeoutError, SemproxyError, ValueError):
                self._end(session)

    async def _open(self) -> Session | None:
        async with self._opening:
            now = time.monotonic()
            if self._session and not self._session.ended and self._session.region:
                return self._session
            if now < self._next:
                return None
            try:
                if self._session is None or self._session.ended:
                    self._session = await asyncio.wait_for(self._dial(), ATTACH_TIME)
                await self._attach(self._session)
            except (OSError, asyncio.TimeoutError, SemproxyError, ValueError, KeyError):
                self.close()
                self._next = time.monotonic() + ATTACH_PAUSE
            return self._session

    async def _dial(self) -> Session:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, self._options.shared_memory)
            hello = accepted(await hear(sock))
            if hello.get("semproxy") != 1:
                raise ValueError("the sidecar speaks another version of the protocol")
            session = Session(sock, hello, self._prove)
        except BaseException:
            sock.close()
            raise
        try:
            await session.prove()
        except BaseException:
            session.close()
            raise
        return session

    async def _prove(self, session: Session) -> None:
        subject = f"kv.{self._options.tenant}.v1.attach.{session.instance}"
        await self._send(subject, {}, session.challenge.encode(), time.monotonic() + ATTACH_TIME)

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
