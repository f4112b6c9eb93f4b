"""A compressed cache as attention reads it: keys, values and a bias for every layer and head."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

GONE = float("-inf")  # the bias of a slot that holds nothing


@dataclass
class Layer:
    """Keys and values are [kv_heads, slots, head_dim], the bias [kv_heads, slots], float32; a slot whose bias is -inf is empty."""

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor


@dataclass
class Compressed:
    """The layers of a cache, how many tokens they stand for, and what the one that made them said of its loss."""

    layers: list[Layer]
    tokens: int
    fidelity: dict[str, float] = field(default_factory=dict)

    def kept(self) -> float:
        """Slots that are used / tokens, over all layers and heads."""
        used = sum(int(torch.isfinite(layer.bias).sum()) for layer in self.layers)
        return used / sum(layer.bias.shape[0] * self.tokens for layer in self.layers)


def whole(keys: torch.Tensor, values: torch.Tensor) -> Compressed:
    """The full cache, of keys and values [layers, kv_heads, tokens, head_dim]."""
    none = torch.zeros(keys.shape[1:3])
    return Compressed([Layer(k.float(), v.float(), none) for k, v in zip(keys, values, strict=True)], keys.shape[2])


def masked(keys: torch.Tensor, values: torch.Tensor, keep: torch.Tensor) -> Compressed:
    """The tokens that keep [layers, kv_heads, tokens] marks; a head may keep more than another."""
    layers = []
    for k, v, mask in zip(keys, values, keep, strict=True):
        width = int(mask.sum(-1).max())
        order = torch.argsort(mask.int(), dim=-1, descending=True, stable=True)[:, :width]  # those that stay first, in order
        index = order[..., None].expand(-1, -1, k.shape[-1])
        bias = torch.zeros(order.shape).masked_fill(~torch.gather(mask, 1, order), GONE)
        layers.append(Layer(torch.gather(k, 1, index).float(), torch.gather(v, 1, index).float(), bias))
    return Compressed(layers, keys.shape[2])
