"""The chain of links that names a sequence's prefixes (docs/reference/page-plane.md), and where a sequence is cut into pages."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from .settings import BLOCK


def links(ids: Sequence[int], salt: str = "") -> list[str]:
    """The link at token 0, at BLOCK, at 2 x BLOCK ... of the whole blocks of ids."""

    def text(s: str) -> bytes:
        return struct.pack("<Q", len(s.encode())) + s.encode()

    link = hashlib.sha256(text("semproxy.prefix.v1") + struct.pack("<Q", BLOCK) + text(salt)).digest()
    out = [link.hex()]
    for at in range(0, len(ids) - len(ids) % BLOCK, BLOCK):
        link = hashlib.sha256(link + struct.pack(f"<{BLOCK}I", *ids[at : at + BLOCK])).digest()
        out.append(link.hex())
    return out


def rank_salt(rank: int, ranks: int, folded: bool) -> str:
    """What tells pages of the same tokens apart: each tensor-parallel rank has heads of its own, and an engine whose attention
    adds no bias wants it in the keys."""
    return ",".join([*([f"tp{rank}/{ranks}"] if ranks > 1 else []), *(["folded"] if folded else [])])


def cuts(first: int, prompt: int, end: int, sizes: tuple[int, int], least: int) -> list[tuple[int, int]]:
    """Pages (from, to) of the tokens from first to end, at whole blocks.

    sizes are those of the first page and of the longest: each page is as long as all before it, so that a short beginning that
    sequences share is found, and long ones are not cut into many. All sequences are cut at the same places; beside them at the prompt's
    last block that leaves one token to compute, so that the same prompt finds all of itself but its last tokens. What is shorter than
    least goes with the next page, or nowhere.
    """
    first, end = -(-first // BLOCK) * BLOCK, end // BLOCK * BLOCK
    ends, at = {(prompt - 1) // BLOCK * BLOCK, end}, sizes[0]
    while at < end:
        ends.add(at)
        at += min(at, sizes[1])
    out = []
    for at in sorted(x for x in ends if first < x <= end):
        if at - first >= least:
            out.append((first, at))
            first = at
    return out
