"""Attention that adds a core's log count to its logits: FlexAttention of vLLM, with a bias for every physical slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.v1.attention.backends.flex_attention import FlexAttentionBackend, FlexAttentionImpl

ScoreMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def score_mod(bias: torch.Tensor, group: int) -> ScoreMod:
    """Adds bias[slot, kv_head] to the score of a query head with the key at a physical slot. group is query heads per head."""

    def add(score: torch.Tensor, b: torch.Tensor, h: torch.Tensor, q_idx: torch.Tensor, kv_idx: torch.Tensor) -> torch.Tensor:
        return score + bias[kv_idx, h // group]

    return add


class SemproxyBackend(FlexAttentionBackend):
    """--attention-backend CUSTOM, once the plugin has been loaded."""

    @staticmethod
    def get_name() -> str:
        return "CUSTOM"

    @staticmethod
    def get_impl_cls() -> type[SemproxyImpl]:
        return SemproxyImpl


class SemproxyImpl(FlexAttentionImpl):
    """FlexAttention, and the bias of its layer's slots."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bias: torch.Tensor | None = None  # F32 [slots, kv_heads]: 0 for tokens, ln(count) for cores, -inf for padding
        self._add: ScoreMod | None = None

    def attach(self, slots: int, device: torch.device) -> torch.Tensor:
        """Give every slot a bias, 0 at first."""
        self.bias = torch.zeros(slots, self.num_kv_heads, dtype=torch.float32, device=device)
        self._add = score_mod(self.bias, self.num_queries_per_kv)
        return self.bias

    def do_kv_cache_update(
        self, layer: torch.nn.Module, key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slot_mapping: torch.Tensor
    ) -> None:
        """Write tokens into their slots. A slot that held a core is a token's again: its bias goes with its key."""
        if key.device.type == "cpu":
            self._write(key, value, kv_cache, slot_mapping)
        else:
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
        if self.bias is not None:  # -1 is padding; slot 0 is of vLLM's null block, which nobody attends to
            self.bias.index_fill_(0, slot_mapping.clamp(min=0).long(), 0.0)

    def _write(self, key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slot_mapping: torch.Tensor) -> None:
        """vLLM's kernel for it is not there on a CPU."""
        used = slot_mapping >= 0
        slots = slot_mapping[used].long()
        n = slot_mapping.shape[0]
        block = kv_cache.shape[2]
        kv_cache[slots // block, :, slots % block] = torch.cat([key[:n], value[:n]], -1)[used].to(kv_cache.dtype)

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As FlexAttention, with this layer's bias. The metadata is shared by all layers, one after the other."""
        if attn_metadata is not None:
            attn_metadata.transformed_score_mod = self._add
        return super().forward(
            layer, query, key, value, kv_cache, attn_metadata, output, output_scale=output_scale, output_block_scale=output_block_scale
        )
