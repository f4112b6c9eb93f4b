"""Proportional attention for transformers: the function "semproxy" of AttentionInterface and AttentionMaskInterface."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from . import capture, importance
from .layer import PREFIX
from .prefix import Prefix

NAME = "semproxy"
MOST_SCORES = 1 << 26  # logits that are in memory at one time, where no kernel of torch tells the weight of its part

Part = tuple[torch.Tensor, torch.Tensor]  # what a part of the entries gives, [n, queries, head_dim], and ln of its weight, F32 [n, queries]


def install(model: Any) -> None:
    """Let the model attend with this function. Without compressed layers it computes what "sdpa" does."""
    if model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)


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
    """softmax(q.k * scaling + bias) v over the cores of a compressed layer and the tokens after them, which are attended apart
    and joined by the weight that each part has.

    query is [batch, q_heads, queries, head_dim], key and value [batch, kv_heads, tokens, head_dim]. attention_mask is that
    of a full cache or of another layer's entries: of it only the tokens after the cores count here, the bias rules the cores.
    """
    prefix: Prefix | None = getattr(key, PREFIX, None)
    capture.queries(module.layer_idx, query, key.shape[-2] + (prefix.tokens if prefix else 0))
    importance.see(module.layer_idx, query, key, scaling)
    if prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    batch, q_heads, n, dim = query.shape
    heads, tokens = key.shape[1], key.shape[2]
    group = q_heads // heads
    scale = dim**-0.5 if scaling is None else scaling
    q = query.reshape(batch, heads, group * n, dim)  # the queries of a group attend as one head, so that keys are not repeated
    mask = _after(attention_mask, n, tokens, query)
    if mask is not None:
        mask = mask[:, :, None].expand(-1, -1, group, -1, -1).reshape(mask.shape[0], mask.shape[1], group * n, tokens)
    late, weight = attend(q, key, value, mask, scale)
    early, its = _cores(q, prefix, scale)
    share = torch.sigmoid(its - weight)[..., None]
    out = torch.lerp(late.float(), early.float(), share).to(query.dtype)
    return out.view(batch, q_heads, n, dim).transpose(1, 2).contiguous(), None


def _cores(q: torch.Tensor, prefix: Prefix, scale: float) -> Part:
    """The part of the cores. q is [batch, kv_heads, queries, head_dim]."""
    layout = prefix.layout()
    batch, heads, n, dim = q.shape
    s, times = layout.sequences, batch // layout.sequences
    if times > 1:  # beams ask the cores that they share side by side
        q = q.view(s, times, heads, n, dim).transpose(1, 2)
    q = q.reshape(s * heads, 1, times * n, dim)
    if len(layout.groups) == 1:
        out, weight = _group(q, prefix, layout.groups[0], scale)
    else:
        out, weight = torch.empty_like(q), q.new_empty(q.shape[:-1], dtype=torch.float32)
        for g in layout.groups:
            out[g.cells], weight[g.cells] = _group(q[g.cells], prefix, g, scale)
    out, weight = out.view(s, heads, times, n, dim), weight.view(s, heads, times, n)
    return out.transpose(1, 2).reshape(batch, heads, n, dim), weight.transpose(1, 2).reshape(batch, heads, n)


def _group(q: torch.Tensor, prefix: Prefix, g: Any, scale: float) -> Part:
    size, shape = len(q) * g.width, (len(q), 1, g.width, q.shape[-1])
    return attend(q, prefix.keys[g.at : g.at + size].view(shape), prefix.values[g.at : g.at + size].view(shape), g.bias, scale)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scale: float) -> Part:
    """Attention of [n, heads, queries, head_dim] over [n, heads, entries, head_dim] with an additive mask, and ln of the sum of
    its exponentials. Every query sees an entry."""
    if q.device.type == "cpu" and not q.requires_grad:
        out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, attn_mask=mask, scale=scale)
        return out, weight
    step = max(1, MOST_SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    outs, weights = [], []
    for at in range(0, q.shape[2], step):
        scores = torch.matmul(q[:, :, at : at + step], k.transpose(-1, -2)).float() * scale
        if mask is not None:
            scores = scores + (mask if mask.shape[2] == 1 else mask[:, :, at : at + step])
        weights.append(torch.logsumexp(scores, -1))
        outs.append(torch.matmul((scores - weights[-1][..., None]).exp().to(v.dtype), v))
    return (outs[0], weights[0]) if len(outs) == 1 else (torch.cat(outs, 2), torch.cat(weights, 2))


def _after(mask: torch.Tensor | None, n: int, tokens: int, like: torch.Tensor) -> torch.Tensor | None:
    """The additive mask of the tokens after the cores, [1 or batch, 1, n, tokens]; None: all are seen."""
    if mask is None:  # nothing is padded: a query sees the tokens up to its own
        if n == 1:
            return None
        mask = torch.ones(1, 1, n, tokens, dtype=torch.bool, device=like.device).tril(tokens - n)
    mask = mask[..., mask.shape[-1] - tokens :]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, float("-inf"))
    return mask


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
