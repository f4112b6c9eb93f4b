"""Where an engine's kernel keeps a key and a value: measured, not assumed.

A backend writes keys and values by its own function (do_kv_cache_update), in an order of its own: packed for a CPU's matrix unit,
heads before slots or behind them, keys and values side by side or apart. Here numbers that can be told apart are written into an
empty block by that function, and looked for. What comes out are strided views: reading needs nothing else of the backend, and
writing goes through its function, which also rounds or scales as the engine does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import UnsupportedModel
from ..wire import fingerprint
from .check import Shape

Write = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Keys and values [tokens, kv_heads, dims], a cache, slots [tokens]: puts them there."""

DIGIT = 64  # numbers below it are exact in every type of a cache that has two bytes or more
DIGIT8 = 8  # and in every one that has one
NUDGE = 1 + 2**-6  # less than half a digit of such a type: a number that is rounded, or cut off, stays where it is

Axis = tuple[tuple[int, int], ...]  # sizes and strides that an axis falls into, the slowest first


@dataclass(frozen=True)
class View:
    """The keys, or the values, of a layer's cache as [blocks, slots, kv_heads, dims], each axis in one or more parts."""

    cache: torch.Tensor
    offset: int  # elements, of the first block
    blocks: tuple[int, int]  # how many, and their stride
    axes: tuple[Axis, Axis, Axis]  # slots, heads, dims

    def read(self, blocks: torch.Tensor) -> torch.Tensor:
        """A copy of the given blocks, [len(blocks) x slots, kv_heads, dims]."""
        parts = [self.blocks, *(part for axis in self.axes for part in axis)]
        view = self.cache.as_strided([n for n, _ in parts], [stride for _, stride in parts], self.cache.storage_offset() + self.offset)
        slots, heads, dims = (_size(axis) for axis in self.axes)
        return view.index_select(0, blocks).reshape(len(blocks) * slots, heads, dims)


@dataclass(frozen=True)
class Layout:
    """slots is how many a block of the kernel has: it divides the engine's block."""

    slots: int
    keys: View
    values: View
    shape: Shape
    scales: tuple[float, float]  # of keys and values, where they are rounded to a byte

    def read(self, blocks: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, [tokens, kv_heads, dims], of the engine's blocks, which have `block` slots each."""
        parts = block // self.slots
        if parts > 1:
            blocks = (blocks[:, None] * parts + torch.arange(parts, device=blocks.device)).flatten()
        keys, values = self.keys.read(blocks), self.values.read(blocks)
        if self.shape.kept is None:
            return keys, values
        read = [
            (of.view(self.shape.kept).float() * scale).to(self.shape.dtype) for of, scale in zip((keys, values), self.scales, strict=True)
        ]
        return read[0], read[1]


def measure(cache: torch.Tensor, shape: Shape, blocks: int, write: Write, scales: tuple[float, float] = (1.0, 1.0)) -> Layout:
    """The layout of a layer's cache, which has `blocks` blocks of the engine. scales are what `write` divides keys and values by where it
    rounds them to a byte. Raises UnsupportedModel when their order cannot be told."""
    if cache.dtype != (torch.uint8 if shape.kept else shape.dtype):
        raise UnsupportedModel(f"the KV cache holds {cache.dtype}, and its specification says {shape.dtype}")
    fit = [i for i, n in enumerate(cache.shape) if n >= blocks > 1 and n % blocks == 0]
    if not fit:
        raise UnsupportedModel(f"a layer's KV cache of shape {list(cache.shape)} has no axis of {blocks} blocks")
    axis = max(fit, key=lambda i: cache.shape[i])
    parts = cache.shape[axis] // blocks
    slots = shape.block // parts
    size = 2 * slots * shape.kv_heads * shape.head_dim
    scratch = _like(cache, axis, 2)
    if scratch.select(axis, 1).numel() != size or shape.block % parts:
        raise UnsupportedModel(
            f"a layer's KV cache of shape {list(cache.shape)} is not one of keys and values alone, of {shape.block} slots a block"
        )
    at = _where(scratch, axis, slots, shape, write, scales)
    strides = [stride for i, stride in enumerate(cache.stride()) if i != axis]
    inner = list(scratch.select(axis, 1).shape)
    offsets = torch.zeros_like(at)
    for n, stride in zip(reversed(inner), reversed(strides), strict=True):
        offsets += at % n * stride
        at = at // n
    views = []
    for of in offsets.view(2, slots, shape.kv_heads, shape.head_dim):
        first = int(of[0, 0, 0])
        axes = _factor(of[:, 0, 0] - first), _factor(of[0, :, 0] - first), _factor(of[0, 0, :] - first)
        sums = of[:, :1, :1] + of[:1, :, :1] + of[:1, :1, :] - 2 * first
        if not torch.equal(sums, of):
            raise UnsupportedModel("the attention backend keeps its keys and values in an order that is not known here")
        views.append(View(cache, first, (cache.shape[axis], cache.stride(axis)), axes))
    return Layout(slots, views[0], views[1], shape, scales)


def page_layout(version: str, shape: Shape) -> str:
    """The fingerprint of pages: their axes are layer, head, token, dimension, whatever the engine's tensors are."""
    order = "LHTD" + (str(shape.kept).split("_")[-1] if shape.kept else "")  # what was rounded once is not mixed with what was not
    return fingerprint("vllm", version, order, shape.kv_heads, shape.head_dim)


def _like(cache: torch.Tensor, axis: int, blocks: int) -> torch.Tensor:
    """A small cache whose axes lie in memory in the same order."""
    shape = list(cache.shape)
    shape[axis] = blocks
    order = sorted(range(len(shape)), key=lambda i: (cache.stride(i), -i), reverse=True)
    dense = torch.zeros([shape[i] for i in order], dtype=cache.dtype, device=cache.device)
    return dense.permute([order.index(i) for i in range(len(shape))])


def _where(scratch: torch.Tensor, axis: int, slots: int, shape: Shape, write: Write, scales: tuple[float, float]) -> torch.Tensor:
    """For each element of keys, then of values, [slots, heads, dims], where it lies in the second block."""
    size = slots * shape.kv_heads * shape.head_dim
    ids = torch.arange(1, 2 * size + 1)
    found = torch.zeros(2 * size, dtype=torch.long)
    where = torch.arange(slots, 2 * slots, device=scratch.device)
    power, base = 1, DIGIT8 if shape.kept else DIGIT
    while power <= 2 * size:
        digits = (ids // power % base).float().view(2, slots, shape.kv_heads, shape.head_dim)
        by = [scale * NUDGE if shape.kept else 1.0 for scale in scales]
        keys, values = ((of * n).to(shape.dtype).to(scratch.device) for of, n in zip(digits, by, strict=True))
        scratch.zero_()
        write(keys, values, scratch, where)
        seen = scratch.select(axis, 1).reshape(-1)
        found += (seen.view(shape.kept) if shape.kept else seen).float().round().long().cpu() * power
        power *= base
    if not torch.equal(found.sort().values, ids):
        raise UnsupportedModel("the attention backend does not keep its keys and values as they are")
    at = torch.empty_like(found)
    at[found - 1] = torch.arange(2 * size)
    return at


def _factor(offsets: torch.Tensor) -> Axis:
    """Sizes and strides, the slowest first, of an axis whose elements lie at these offsets."""
    n = len(offsets)
    if n == 1:
        return ((1, 0),)
    stride = int(offsets[1] - offsets[0])
    run = next((i for i in range(1, n) if int(offsets[i] - offsets[i - 1]) != stride), n)
    if n % run or not torch.equal(offsets, offsets[::run].repeat_interleave(run) + torch.arange(run).repeat(n // run) * stride):
        raise UnsupportedModel("the attention backend keeps its keys and values in an order that is not known here")
    return ((run, stride),) if run == n else (*_factor(offsets[::run]), (run, stride))


def _size(axis: Axis) -> int:
    out = 1
    for n, _ in axis:
        out *= n
    return out
