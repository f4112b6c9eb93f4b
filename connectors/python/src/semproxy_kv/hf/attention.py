"""Proportional attention for transformers: the function "semproxy" of AttentionInterface and AttentionMaskInterface."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .layer import BIAS

NAME = "semproxy"

_queries: ContextVar[tuple[int, dict[int, torch.Tensor]] | None] = ContextVar("semproxy_queries", default=None)


def install(model: Any) -> None:
    """Let the model attend with this function. Without compressed layers it computes what "sdpa" does."""
    if model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)


@contextlib.contextmanager
def capture_queries(window: int = 16) -> Iterator[dict[int, torch.Tensor]]:
    """Keep the last queries of every layer of the forward passes inside, [batch, q_heads, window, head_dim] after RoPE, for
    compress(queries=...): the sidecar measures its fidelity with them. The model must attend with this function."""
    kept: dict[int, torch.Tensor] = {}
    token = _queries.set((window, kept))
    try:
        yield kept
    finally:
        _queries.reset(token)


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(q.k * scaling + bias) v, with the bias that a compressed layer gave its keys.

    query is [batch, q_heads, queries, head_dim], key and value [batch, kv_heads, entries, head_dim]. attention_mask is that
    of a full cache or of another layer's entries: of it only the tokens after the cores count here, the bias rules the cores.
    """
    if (capture := _queries.get()) is not None:
        window, kept = capture
        before = kept.get(module.layer_idx)
        seen = query if before is None or before.shape[0] != query.shape[0] else torch.cat([before, query], 2)
        kept[module.layer_idx] = seen[:, :, -window:].detach()
    bias = getattr(key, BIAS, None)
    if bias is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    batch, q_heads, n, dim = query.shape
    heads, entries = key.shape[1], key.shape[2]
    group = q_heads // heads
    after = entries - bias.shape[-1]
    mask = bias[:, :, None, :].expand(-1, -1, n, -1)
    mask = torch.cat([mask, _after(attention_mask, batch, n, after, mask)], -1).to(query.dtype)
    if group > 1:  # the queries of a group attend as one head, so that keys are not repeated
        mask = mask[:, :, None].expand(-1, -1, group, -1, -1).reshape(batch, heads, group * n, entries)
    out = F.scaled_dot_product_attention(
        query.reshape(batch, heads, group * n, dim), key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
    )
    return out.reshape(batch, q_heads, n, value.shape[-1]).transpose(1, 2).contiguous(), None


def _after(mask: torch.Tensor | None, batch: int, n: int, after: int, like: torch.Tensor) -> torch.Tensor:
    """The additive mask of the entries after the cores, [batch, kv_heads, n, after]."""
    if mask is None:  # nothing is padded: a query sees the tokens up to its own
        mask = torch.ones(n, after, dtype=torch.bool, device=like.device).tril(after - n)
    mask = mask[..., mask.shape[-1] - after :]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, float("-inf"))
    return mask.to(like.dtype).expand(batch, like.shape[1], n, after)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
