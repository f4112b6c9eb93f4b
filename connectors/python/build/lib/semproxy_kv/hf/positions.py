"""A cache at other positions: RoPE is relative and linear, so merged keys rotate exactly."""

from __future__ import annotations

from transformers.cache_utils import Cache

from ..tensors import rotate
from ..wire import Rope
from .layer import CompressedLayer


def rebase(cache: Cache, rope: Rope, tokens: int) -> None:
    """Let a compressed cache go on as if it held so many tokens: every key is rotated by the difference, so that the next
    token stands at position `tokens` and attention does not change. For sequences that outgrow the positions a model was
    trained for; tokens is at least the longest layer's physical length."""
    layers = [layer for layer in cache.layers if isinstance(layer, CompressedLayer)]
    if len(layers) != len(cache.layers):
        raise ValueError("every layer of the cache must be compressed")
    least = max(layer.physical_length() for layer in layers)
    if tokens < least:
        raise ValueError(f"tokens must be at least {least}, the entries of the longest layer")
    for layer in layers:
        by = tokens - layer.get_seq_length()
        p = layer.prefix
        layer.keys = rotate(layer.keys, rope, by)
        p.keys = rotate(p.keys, rope, by)
        p.positions = p.positions + by
        p.tokens += by
