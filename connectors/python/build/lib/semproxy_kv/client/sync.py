"""The client for programs without an event loop, such as an engine's worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ..errors import SemproxyError
from .aio import AsyncClient
from .options import Options, Result
from .reply import UNREACHABLE

T = TypeVar("T")


class Client:
    """AsyncClient behind ordinary calls, from any thread. Its event loop runs in a daemon thread until close()."""

    def __init__(self, url: str, options: Options) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="semproxy_kv", daemon=True)
        self._thread.start()
        try:
            self._client: AsyncClient = self._run(AsyncClient.connect(url, options))
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the client, its connection and its thread."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._client.close())
        finally:
            self._stop()

    @property
    def options(self) -> Options:
        return self._client.options

    @property
    def max_page(self) -> int:
        """Bytes of the largest page that can be sent. The sidecar is asked the first time."""
        return self._run(self._client.learn())

    @property
    def page_tensors(self) -> tuple[str, ...]:
        """Names of a page's tensors that the sidecar takes; none where it has not said."""
        self._run(self._client.learn())
        return self._client.page_tensors

    def compress(self, page: bytes) -> Result:
        """Send one page and return its cores, both as blobs."""
        return self._run(self._client.compress(page))

    def submit(self, page: bytes) -> Future[Result]:
        """compress() without waiting. Cancelling the future gives the page up."""
        return self._start(self._client.compress(page))

    def get(self, name: str) -> Result:
        """The object of that name."""
        return self._run(self._client.get(name))

    def stat(self) -> Result:
        """The tenant's state, as JSON."""
        return self._run(self._client.stat())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._start(work).result()

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop.is_closed():
            work.close()
            raise SemproxyError(UNREACHABLE, "the client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _stop(self) -> None:
        async def cancel() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._run(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
