"""The chain of links that names a sequence's prefixes (docs/reference/page-plane.md), and where a sequence is cut into pages."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Container, Sequence
from itertools import pairwise

from .settings import BLOCK

OPENING = 2 * BLOCK  # tokens of a page that ends with the first message, at least: a single block would hold nothing but exact tokens


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


def cuts(
    ids: Sequence[int],
    first: int,
    prompt: int,
    end: int,
    sizes: tuple[int, int],
    least: int,
    separators: Container[int] = (),
    block: int = BLOCK,
) -> list[tuple[int, int]]:
    """Pages (from, to) of the tokens from first to end, at whole BLOCKs. ids are the sequence's tokens, from its start.

    A page ends when it is as long as all before it, within sizes, those of the first page and of the longest: so a short beginning
    that sequences share is found, and long ones are not cut into many. It ends earlier where a message does, behind one of the
    separators, if it is as long as a first page by then; the first message that ends behind a first page, mostly the system prompt,
    needs OPENING tokens only. All of that goes by the tokens before an end, so that sequences which begin alike are cut alike.

    Beside them pages end at the prompt's last block that leaves one token to compute, so that the same prompt finds all of itself but
    its last tokens, and at the end. What is shorter than least there goes with the next page, or nowhere.

    block is what the cores of a head come in whole numbers of. A short page has that too, or a head that keeps most of it could not.
    """
    first, end = -(-first // BLOCK) * BLOCK, end // BLOCK * BLOCK
    shortest, longest = max(sizes[0], least), sizes[1]
    messages = [(at + 1) // block * block for at, token in enumerate(ids[:end]) if token in separators]
    places = [(at, shortest) for at in messages]
    places += [(at, OPENING) for at in messages if at >= shortest][:1]
    places += [(at, least) for at in ((prompt - 1) // BLOCK * BLOCK, end) if at <= end]
    ends = [first]
    for at, needed in sorted(places):
        while (full := ends[-1] + max(shortest, min(ends[-1], longest))) <= at:
            ends.append(full)
        tokens = at - ends[-1]
        if tokens >= needed and (tokens >= shortest or tokens % block == 0):
            ends.append(at)
    return list(pairwise(ends))
