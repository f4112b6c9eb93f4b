"""torch tensors as tensors of the wire, and back."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import refuse
from ..wire import Tensor

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
