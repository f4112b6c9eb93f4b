"""Fingerprints of an engine's KV layout."""

from __future__ import annotations

import hashlib


def fingerprint(engine: str, version: str, order: str, *dims: int) -> str:
    """Name an engine's KV layout, for the metadata value "layout"; the same text as page.Fingerprint of the Go side.

    order is the order of the axes (such as "BHTD"), dims are the sizes that fix the layout. Two engines whose memory
    could be read differently get different fingerprints.
    """
    sizes = [str(d) for d in dims]
    digest = hashlib.sha256()
    for part in [engine, version, order, *sizes]:
        digest.update(f"{len(part.encode())}:{part}".encode())
    parts = [engine, version, order] + (["x".join(sizes)] if sizes else [])
    return ".".join([*parts, digest.hexdigest()[:12]])
