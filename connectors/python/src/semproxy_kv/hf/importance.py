"""How much each token of a cache is needed, by a second prefill: for compress(importance=...)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ..importance import BEGINS, PART, SINKS, Requests, largest, parts
from .model import check_model


@torch.no_grad()
def measure_importance(model: Any, cache: Cache, input_ids: torch.Tensor, tokenizer: Any, chunk: int = PART) -> torch.Tensor:
    """The largest attention that each token of a full cache gets while the model repeats the text: float32
    [layers, batch, kv_heads, tokens], from 0 to 1 (KVzip, arXiv 2505.23416).

    It costs a second prefill. The text is repeated `chunk` tokens at a time, and attention is shared out over that part of the text and
    its repetition. input_ids, [batch, tokens], are the tokens of the cache, and may go on; without padding. The cache is as it was
    afterwards.
    """
    from .attention import install

    check_model(model)
    tokens = cache.get_seq_length()
    if other := {type(layer).__name__ for layer in cache.layers if type(layer) is not DynamicLayer}:
        raise ValueError(f"the importance of tokens is measured in a DynamicCache that is not compressed, not in layers of {other.pop()}")
    if not SINKS < tokens <= input_ids.shape[1] or chunk < BEGINS:
        raise ValueError(
            f"{input_ids.shape[1]} input ids, a cache of {tokens} tokens, chunks of {chunk}: wanted are the ids of all tokens, "
            f"more than {SINKS} of them, and chunks of {BEGINS} or more"
        )
    install(model)
    asks = Requests.of(tokenizer)
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"  # as transformers < 5.3 has it
    full = [(layer.keys, layer.values) for layer in cache.layers]  # what comes behind goes into memory of its own
    scores: dict[int, torch.Tensor] = {}
    for first, last in parts(0, tokens, chunk):
        ids = torch.tensor([asks.repetition(row, first, last) for row in input_ids.tolist()], device=input_ids.device)
        try:
            with _watching(_Part(first, last, tokens, scores)):
                model(input_ids=ids, use_cache=True, logits_to_keep=1, **{name: cache})
        finally:
            for layer, (keys, values) in zip(cache.layers, full, strict=True):
                layer.keys, layer.values = keys, values
    out = torch.stack([scores[layer] for layer in sorted(scores)])
    out[..., :SINKS] = 1
    return out


@dataclass
class _Part:
    """The tokens from first to last of a cache of so many tokens, which are being repeated."""

    first: int
    last: int
    tokens: int
    scores: dict[int, torch.Tensor]  # by layer, [batch, kv_heads, tokens]

    def see(self, layer: int, query: torch.Tensor, key: torch.Tensor, scale: float) -> None:
        found = self.scores.setdefault(layer, torch.zeros(*key.shape[:2], self.tokens, device=key.device))
        keys = torch.cat([key[:, :, self.first : self.last], key[:, :, self.tokens :]], 2)
        part = found[:, :, self.first : self.last]
        torch.maximum(part, largest(query, keys, self.last - self.first, 0, scale), out=part)


_part: ContextVar[_Part | None] = ContextVar("semproxy_importance", default=None)


@contextmanager
def _watching(part: _Part) -> Iterator[None]:
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)


def see(layer: int, query: torch.Tensor, key: torch.Tensor, scale: float | None) -> None:
    """Called by attention for every layer."""
    if (part := _part.get()) is not None:
        part.see(layer, query, key, query.shape[-1] ** -0.5 if scale is None else scale)
