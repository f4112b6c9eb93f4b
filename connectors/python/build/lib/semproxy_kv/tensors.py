"""torch tensors as tensors of the wire, and back; cores head by head; keys at other positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .errors import refuse
from .wire import Cores, Rope, Tensor

NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.uint8: "U8",
}
TYPES = {name: dtype for dtype, name in NAMES.items()}


def to_wire(t: torch.Tensor) -> Tensor:
    """A tensor for a page. Copies it to the CPU unless it is there and contiguous."""
    if t.dtype not in NAMES:
        raise refuse("page.bad_dtype", "a tensor of the cache", t.dtype, ", ".join(NAMES.values()))
    t = t.detach().to("cpu").contiguous()
    return Tensor(NAMES[t.dtype], tuple(t.shape), t.reshape(-1).view(torch.uint8).numpy())


def from_wire(t: Tensor) -> torch.Tensor:
    """A tensor on the CPU that owns its memory."""
    raw = np.frombuffer(t.data, np.uint8).copy()
    return torch.from_numpy(raw).view(TYPES[t.dtype]).reshape(t.shape)


@dataclass
class Head:
    """Cores of one head: keys and values [n, head_dim], bias and positions [n]."""

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor
    positions: torch.Tensor


def heads(cores: Cores, dtype: torch.dtype) -> dict[tuple[int, int], Head]:
    """The cores of every (layer of the page, head), without padding, as dtype; 8-bit cores are scaled back."""
    flat = {name: from_wire(getattr(cores, name)) for name in ("k", "v", "bias", "positions")}
    k, v = (flat[name].reshape(-1, cores.head_dim) for name in ("k", "v"))
    bias, positions = flat["bias"].reshape(-1), flat["positions"].reshape(-1)
    scales = [None if t is None else from_wire(t) for t in (cores.k_scale, cores.v_scale)]
    out = {}
    for layer, head, rows in cores.rows():
        pair = []
        for data, scale in zip((k[rows], v[rows]), scales, strict=True):
            pair.append(data.to(dtype) if scale is None else (data.float() * scale[layer, head]).to(dtype))
        out[layer, head] = Head(pair[0], pair[1], bias[rows], positions[rows])
    return out


def rotate(keys: torch.Tensor, rope: Rope, by: float) -> torch.Tensor:
    """Rotate keys [..., head_dim] by so many positions, which may be negative. Returns new keys of the same type."""
    if not by or rope.type == "none":
        return keys.clone()
    angle = torch.tensor(rope.frequencies(), dtype=torch.float64) * by
    cos, sin = (f(angle).to(keys.device, torch.float32) for f in (torch.cos, torch.sin))
    turned, rest = keys[..., : rope.rotary_dim].float(), keys[..., rope.rotary_dim :]
    if rope.interleaved:
        u, v = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack([u * cos - v * sin, v * cos + u * sin], -1).flatten(-2)
    else:
        u, v = turned.chunk(2, -1)
        turned = torch.cat([u * cos - v * sin, v * cos + u * sin], -1)
    return torch.cat([turned.to(keys.dtype), rest], -1)
