"""Hands out parts of a region, first fit, so that a sender that waits for its replies touches few pages of memory."""

from __future__ import annotations

import bisect

ALIGN = 4096  # the least part, so that blocks do not share a page of memory


class Allocator:
    """Parts are known by their offset. Not safe for concurrent use."""

    def __init__(self, size: int) -> None:
        self._free: list[tuple[int, int]] = [(0, size // ALIGN * ALIGN)]  # (offset, length) by offset
        self._out: dict[int, int] = {}  # length of what was handed out

    @property
    def idle(self) -> bool:
        """Whether nothing is out."""
        return not self._out

    def take(self, n: int) -> int | None:
        """The offset of a part of at least n bytes, or None when there is no room."""
        n = -(-n // ALIGN) * ALIGN
        for i, (offset, length) in enumerate(self._free):
            if length >= n:
                self._free[i : i + 1] = [(offset + n, length - n)] if length > n else []
                self._out[offset] = n
                return offset
        return None

    def give(self, offset: int) -> bool:
        """Take a part back; whether nothing is out any more."""
        length = self._out.pop(offset)
        i = bisect.bisect(self._free, (offset, 0))
        if i < len(self._free) and offset + length == self._free[i][0]:
            length += self._free.pop(i)[1]
        if i > 0 and sum(self._free[i - 1]) == offset:
            before, its = self._free[i - 1]
            self._free[i - 1] = (before, its + length)
        else:
            self._free.insert(i, (offset, length))
        return self.idle
