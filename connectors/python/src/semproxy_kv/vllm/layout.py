"""How the engine lays a layer's KV out in memory, behind one interface: views of keys and values by block and slot.

The layout is read from the tensors that the engine registers, never assumed: vLLM has changed it several times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import UnsupportedModel
from ..wire import fingerprint
from .check import Shape

Views = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Layout:
    """order names the axes of a layer's tensor: B blocks, T slots of a block, H heads, D dimensions of a key or a value, C both
    one behind the other, K the axis of keys and values. split gives keys and values as views, [blocks, slots, heads, dims]."""

    order: str
    split: Callable[[torch.Tensor], Views]


def _packed(t: torch.Tensor) -> Views:
    half = t.shape[-1] // 2
    t = t.transpose(1, 2)
    return t[..., :half], t[..., half:]


def _unbind(axis: int) -> Callable[[torch.Tensor], Views]:
    def split(t: torch.Tensor) -> Views:
        return t.select(axis, 0), t.select(axis, 1)

    return split


LAYOUTS = (
    Layout("BHTC", _packed),  # vLLM 0.33
    Layout("KBTHD", _unbind(0)),  # older vLLM: FlexAttention, FlashAttention
    Layout("BKTHD", _unbind(1)),  # older vLLM: FlashInfer, Triton
)


def detect(t: torch.Tensor, shape: Shape, blocks: int) -> Layout:
    """The layout of a layer's tensor. Raises UnsupportedModel when none fits, or more than one."""
    sizes = {"B": blocks, "T": shape.block, "H": shape.kv_heads, "D": shape.head_dim, "C": 2 * shape.head_dim, "K": 2}
    fit = [x for x in LAYOUTS if tuple(t.shape) == tuple(sizes[axis] for axis in x.order)]
    if t.dtype != shape.dtype:
        raise UnsupportedModel(f"the KV cache holds {t.dtype}, and its specification says {shape.dtype}")
    if len(fit) != 1:
        known = ", ".join(f"{x.order} {[sizes[axis] for axis in x.order]}" for x in LAYOUTS)
        what = "fits more than one layout" if fit else "is of no known layout"
        raise UnsupportedModel(f"a layer's KV cache of shape {list(t.shape)} {what}; known are {known}")
    return fit[0]


def page_layout(version: str, shape: Shape) -> str:
    """The fingerprint of pages: their axes are layer, head, token, dimension, whatever the engine's tensors are."""
    return fingerprint("vllm", version, "LHTD", shape.kv_heads, shape.head_dim)
