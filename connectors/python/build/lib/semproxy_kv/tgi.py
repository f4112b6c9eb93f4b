"""TGI, experimental: attention of its transformers backend that gives cores their weight.

install() takes the place of TGI's function "tgi" (text-generation-inference 3.3, transformers_flash_causal_lm.py). Caches that
hold no cores go through TGI's own function, unchanged. put() writes cores into slots of a cache; nothing in TGI calls it: it has
no way to hand a prompt's KV out or in, so that what calls it must be your own code, in TGI's process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .errors import UnsupportedModel

NAME = "tgi"
BIAS = "semproxy_bias"  # attribute of a layer's KVCache: F32 [slots, kv_heads], 0 for tokens, ln(count) for cores, -inf for padding

_original: Callable[..., Any] | None = None


def install() -> None:
    """Call it after TGI's module has been imported, and before a model is loaded. May be called again."""
    global _original
    present = ALL_ATTENTION_FUNCTIONS.get(NAME)
    if present is not attention:
        _original = present
        ALL_ATTENTION_FUNCTIONS[NAME] = attention  # where TGI puts its own


def put(cache: Any, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor) -> None:
    """Write cores into the slots of a layer: keys and values [n, kv_heads, head_dim], bias [n, kv_heads]. Raises
    UnsupportedModel for a cache whose blocks are laid out another way than [blocks, slots, kv_heads, head_dim]."""
    to_keys, to_values = _flat(cache)
    if getattr(cache, BIAS, None) is None:
        setattr(cache, BIAS, torch.zeros(to_keys.shape[:2], device=to_keys.device))
    to_keys[slots], to_values[slots] = keys.to(to_keys.dtype), values.to(to_values.dtype)
    getattr(cache, BIAS)[slots] = bias.to(to_keys.device, torch.float32)


def _flat(cache: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values by slot, views of the cache: [slots, kv_heads, head_dim]."""
    k, v = cache.key, cache.value
    if k.ndim != 4 or k.shape != v.shape or k.dtype.itemsize < 2:
        raise UnsupportedModel(
            f"a KV cache of {list(k.shape)}, {k.dtype} is not supported; start TGI with ATTENTION=flashdecoding, unquantised"
        )
    return k.flatten(0, 1), v.flatten(0, 1)


def attention(
    module: Any,
    query_states: torch.Tensor,
    key_states: torch.Tensor,
    value_states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    kv_cache: list[Any],
    kv_head_mapping: torch.Tensor,
    slots: torch.Tensor,
    cu_seqlen_prefill: torch.Tensor | None,
    seqlen: Any,
    block_tables: torch.Tensor,
    max_s: int,
    kv_scales: Any,
    softmax_scale: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(q.k * scale + bias) v of sequences that lie one behind the other, [1, heads, tokens, head_dim], over their blocks."""
    cache = kv_cache[module.layer_idx]
    bias = getattr(cache, BIAS, None)
    if bias is None and _original is not None:
        return _original(
            module, query_states, key_states, value_states, attention_mask, kv_cache, kv_head_mapping, slots, cu_seqlen_prefill, seqlen,
            block_tables, max_s, kv_scales, softmax_scale=softmax_scale, sliding_window=sliding_window, softcap=softcap, **kwargs,
        )  # fmt: skip
    if sliding_window not in (None, -1) or softcap is not None:
        raise UnsupportedModel("sliding windows and soft caps are not supported")
    keys, values = _flat(cache)
    cache.store(key=key_states.transpose(1, 2)[0], value=value_states.transpose(1, 2)[0], slots=slots, kv_scales=kv_scales)
    if bias is not None:
        bias[slots] = 0.0  # a slot that held a core is a token's again
    query = query_states[0]
    heads, _, dim = query.shape
    group = heads // keys.shape[1]
    lengths = (seqlen.input_lengths + seqlen.cache_lengths).tolist()
    starts = cu_seqlen_prefill.tolist() if cu_seqlen_prefill is not None else list(range(len(lengths) + 1))
    block = cache.key.shape[1]
    out = []
    for i, total in enumerate(lengths):
        q = query[:, starts[i] : starts[i + 1]]
        n = q.shape[1]
        at = torch.arange(total, device=q.device)
        where = block_tables[i][at // block].long() * block + at % block
        later = at[None] > total - n + torch.arange(n, device=q.device)[:, None]
        mask = torch.zeros(keys.shape[1], n, total, device=q.device) if bias is None else bias[where].T[:, None].expand(-1, n, -1)
        mask = mask.masked_fill(later, float("-inf")).repeat_interleave(group, 0)
        k, v = (t[where].transpose(0, 1).repeat_interleave(group, 0) for t in (keys, values))
        out.append(F.scaled_dot_product_attention(q[None], k[None], v[None], mask[None].to(q.dtype), scale=softmax_scale)[0])
    return torch.cat(out, 1).transpose(0, 1).reshape(-1, heads * dim), None
