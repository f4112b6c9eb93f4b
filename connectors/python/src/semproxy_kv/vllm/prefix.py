"""The chain of links that names a sequence's prefixes (docs/page-plane.md), and where a sequence is cut into pages."""

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


def rank_salt(rank: int, ranks: int) -> str:
    """What tells the pages of tensor-parallel ranks apart: each holds the heads of its rank."""
    return f"tp{rank}/{ranks}" if ranks > 1 else ""


def cuts(first: int, prompt: int, end: int, page: int, least: int) -> list[tuple[int, int]]:
    """Pages (from, to) of the tokens from first to end, at whole blocks.

    A page ends every `page` tokens, and at the prompt's last block that leaves one token to compute, so that the same prompt
    finds all of itself but its last tokens. What is shorter than least goes with the next page, or nowhere.
    """
    first, end = -(-first // BLOCK) * BLOCK, end // BLOCK * BLOCK
    ends = {*range(first + page, end, page), (prompt - 1) // BLOCK * BLOCK, end}
    out = []
    for at in sorted(x for x in ends if first < x <= end):
        if at - first >= least:
            out.append((first, at))
            first = at
    return out
