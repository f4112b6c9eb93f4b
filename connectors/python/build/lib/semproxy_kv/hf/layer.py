"""A layer of a cache whose first tokens are cores."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer

from .prefix import Prefix

PREFIX = "_semproxy_prefix"  # attribute of the keys that update() returns: the cores before them
GROW = 256  # tokens that a buffer has room for beyond what it holds, at least


class CompressedLayer(CacheLayerMixin):
    """A prefix of cores, then the tokens that came after it as they are, in buffers that grow in blocks.

    keys and values are those after the prefix. get_seq_length() is the logical length, in tokens; get_mask_sizes() tells how
    many entries there really are. update() returns the keys after the prefix, which carry the prefix as an attribute; only
    the attention function of this package reads it, so update() refuses to serve a model that attends with another.
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
        self.lent = False  # begin() sends from these buffers

    @property
    def keys(self) -> torch.Tensor:
        return self._keys[..., : self._tokens, :]

    @keys.setter
    def keys(self, keys: torch.Tensor | None) -> None:
        if keys is not None:  # the base class begins with none
            self._keys, self._tokens, self._room = keys, keys.shape[-2], 0  # somebody else's memory is not written to

    @property
    def values(self) -> torch.Tensor:
        return self._values[..., : self._tokens, :]

    @values.setter
    def values(self, values: torch.Tensor | None) -> None:
        if values is not None:
            self._values = values

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: a layer is made with its cores."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        from .attention import NAME

        if self.config._attn_implementation != NAME:
            raise RuntimeError(f'a compressed cache needs attention that knows its cores: call model.set_attn_implementation("{NAME}")')
        first, tokens = self._tokens, self._tokens + key_states.shape[-2]
        if tokens > self._room:
            self._keys, self._values = (_grown(t[..., :first, :], tokens) for t in (self._keys, self._values))
            self._room = self._keys.shape[-2]
        self._keys[..., first:tokens, :] = key_states
        self._values[..., first:tokens, :] = value_states
        self._tokens = tokens
        keys = self.keys
        setattr(keys, PREFIX, self.prefix)
        return keys, self.values

    def get_seq_length(self) -> int:
        return self.prefix.tokens + self._tokens

    def physical_length(self) -> int:
        """Entries of the head that has most."""
        return self.prefix.width + self._tokens

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        physical = self.physical_length()
        return physical + query_length, self.get_seq_length() - physical

    def get_max_length(self) -> int:
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        n = abs(tokens_to_remove)
        if n > self._tokens:
            raise ValueError(f"{n} tokens cannot be removed: only the last {self._tokens} are not merged into cores")
        self._tokens -= n
        if self.lent:  # what was sent of them is not written over
            self._room = 0

    def reset(self) -> None:
        raise RuntimeError("a compressed cache cannot be emptied for another sequence: make a new DynamicCache")

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.batch_select_indices(torch.arange(self._keys.shape[0]).repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.prefix = self.prefix.select(indices)
        self._keys, self._values = (t[indices.to(t.device)] for t in (self._keys, self._values))

    def bytes(self) -> int:
        """Memory of this layer: its cores with their padding, rows, bias and positions; the tokens after them and room for more."""
        return self.prefix.bytes() + sum(t.numel() * t.element_size() for t in (self._keys, self._values))


def _grown(t: torch.Tensor, tokens: int) -> torch.Tensor:
    """A copy with room for so many tokens and some more."""
    out = t.new_empty(*t.shape[:-2], tokens + max(GROW, tokens // 4), t.shape[-1])
    out[..., : t.shape[-2], :] = t
    return out


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
