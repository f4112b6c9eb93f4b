"""A layer of a cache whose first tokens are cores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

BIAS = "_semproxy_bias"  # attribute of the keys that update() returns: the bias of their first entries


@dataclass
class Prefix:
    """Cores of one layer for every sequence of a batch.

    keys and values hold the cores of all sequences and heads one after the other, [entries, head_dim], so that heads that
    keep many cores cost the others nothing; rows tells which are whose, [batch, kv_heads, width], aligned to the right;
    bias is F32, what attention adds to their logits, -inf where a head has fewer than width; positions are F32.
    tokens is how many tokens they stand for.
    """

    keys: torch.Tensor
    values: torch.Tensor
    rows: torch.Tensor
    bias: torch.Tensor
    positions: torch.Tensor
    tokens: int

    @property
    def width(self) -> int:
        return self.rows.shape[-1]

    def select(self, batch: torch.Tensor) -> Prefix:
        """The same for other rows of the batch. Sequences that were one share their cores."""
        i = batch.to(self.rows.device)
        return Prefix(self.keys, self.values, self.rows[i], self.bias[i], self.positions[i], self.tokens)

    def join(self, later: Prefix) -> Prefix:
        """These cores, then later ones."""
        return Prefix(
            torch.cat([self.keys, later.keys]),
            torch.cat([self.values, later.values]),
            torch.cat([self.rows, later.rows + self.keys.shape[0]], -1),
            torch.cat([self.bias, later.bias], -1),
            torch.cat([self.positions, later.positions], -1),
            self.tokens + later.tokens,
        )

    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values, self.rows, self.bias, self.positions))


class CompressedLayer(CacheLayerMixin):
    """A prefix of cores, then the tokens that came after it as they are.

    get_seq_length() is the logical length, in tokens; get_mask_sizes() tells how many entries there really are. update()
    returns keys that carry their bias as an attribute; only the attention function of this package reads it, so update()
    refuses to serve a model that attends with another.
    """

    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, prefix: Prefix, keys: torch.Tensor, values: torch.Tensor, config: Any) -> None:
        """keys and values are those after the prefix, [batch, kv_heads, tokens, head_dim], and may have no token."""
        super().__init__()
        self.prefix = prefix
        self.keys, self.values = keys, values
        self.device = keys.device
        self.config = config
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: a layer is made with its cores."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        from .attention import NAME

        if self.config._attn_implementation != NAME:
            raise RuntimeError(f'a compressed cache needs attention that knows its bias: call model.set_attn_implementation("{NAME}")')
        self.keys = torch.cat([self.keys, key_states], dim=-2)
        self.values = torch.cat([self.values, value_states], dim=-2)
        p = self.prefix
        keys = torch.cat([p.keys[p.rows], self.keys], dim=-2)
        values = torch.cat([p.values[p.rows], self.values], dim=-2)
        setattr(keys, BIAS, p.bias)
        return keys, values

    def get_seq_length(self) -> int:
        return self.prefix.tokens + self.keys.shape[-2]

    def physical_length(self) -> int:
        """Entries that attention reads of a head, padding included."""
        return self.prefix.width + self.keys.shape[-2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        physical = self.physical_length()
        return physical + query_length, self.get_seq_length() - physical

    def get_max_length(self) -> int:
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        n = abs(tokens_to_remove)
        if n > self.keys.shape[-2]:
            raise ValueError(f"{n} tokens cannot be removed: only the last {self.keys.shape[-2]} are not merged into cores")
        if n:
            self.keys, self.values = self.keys[..., :-n, :], self.values[..., :-n, :]

    def reset(self) -> None:
        raise RuntimeError("a compressed cache cannot be emptied for another sequence: make a new DynamicCache")

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(self.keys.shape[0]).repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.prefix = self.prefix.select(indices)
        self.keys, self.values = self.keys[indices.to(self.keys.device)], self.values[indices.to(self.keys.device)]

    def bytes(self) -> int:
        """Memory of this layer, with rows, bias and positions."""
        return self.prefix.bytes() + sum(t.numel() * t.element_size() for t in (self.keys, self.values))


def cache_bytes(cache: Cache) -> int:
    """Memory of a cache's tensors."""
    total = 0
    for layer in cache.layers:
        if isinstance(layer, CompressedLayer):
            total += layer.bytes()
        elif layer.is_initialized:
            total += sum(t.numel() * t.element_size() for t in (layer.keys, layer.values))
    return total


def plain(layer: Any) -> bool:
    """Whether a layer keeps every token as it is, and grows."""
    return type(layer) is DynamicLayer
