"""What the scheduler's side tells the workers in each step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata

from ..errors import SemproxyError


@dataclass(frozen=True)
class Load:
    """Put cores into slots. blocks are those of all slots, of which the first `skip` hold their cores already."""

    request: str
    tenant: str
    objects: tuple[tuple[str, ...], ...]  # of each rank, in the order of tokens, then layers
    slots: int  # for the cores, a multiple of the block
    shift: int  # of positions, added to those of the cores: slots less tokens
    blocks: tuple[int, ...]
    skip: int  # blocks


@dataclass(frozen=True)
class Save:
    """Send the KV of a finished request. ids are those of all logical tokens; token t is at slot t + shift."""

    request: str
    tenant: str
    sequence: str
    ids: tuple[int, ...]
    pages: tuple[tuple[int, int], ...]  # (from, to), logical
    shift: int
    blocks: tuple[int, ...]
    traceparent: str = ""
    protect: tuple[tuple[int, int], ...] | None = None  # ranges [from, to) of tokens that stay exact; None: not known


def ranges(given: Any) -> tuple[tuple[int, int], ...] | None:
    """What a request's `protect` says, or SemproxyError: what is to stay exact is never guessed."""
    if given is None:
        return None
    try:
        pairs = tuple((first, last) for first, last in given)
    except (TypeError, ValueError):
        pairs = ((1, 0),)
    if not all(type(first) is int and type(last) is int and 0 <= first <= last for first, last in pairs):
        raise SemproxyError("page.bad_metadata", "protect must list ranges [from, to) of the prompt's tokens")
    return pairs


@dataclass
class StepMeta(KVConnectorMetadata):
    loads: list[Load] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
