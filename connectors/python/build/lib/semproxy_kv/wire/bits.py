"""Keys and values in 4 or 8 bits (docs/reference/wire-format.md, "In few bits"): what the codes stand for, to the bit as Go computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def rows(codes: Array, scales: Array, bits: int) -> Array:
    """codes [n, bytes] and scales [n], the bit patterns of BF16: the rows, F32 [n, dim]."""
    if bits == 8:
        x = 2 * codes.astype(np.int32) - 255
    else:
        x = 2 * np.stack([codes & 15, codes >> 4], -1).reshape(len(codes), -1).astype(np.int32) - 15
    n, dim = x.shape
    size = dim & -dim  # the Hadamard matrix of each block, in whole numbers
    h = 1
    while h < size:
        x = x.reshape(n, -1, 2, h)
        x = np.stack([x[:, :, 0] + x[:, :, 1], x[:, :, 0] - x[:, :, 1]], 2)
        h *= 2
    with np.errstate(over="ignore"):  # what is too large is found by its being infinite
        return widen(scales)[:, None] * x.reshape(n, dim).astype(np.float32)


def carrier(mean: Array, frequencies: Array | None, interleaved: bool, positions: Array) -> Array:
    """mean, F32 [dim], rotated to each position: F32 [n, dim]."""
    out = np.repeat(mean[None], len(positions), 0)
    if frequencies is None:
        return out
    pairs = len(frequencies)
    i = np.arange(pairs)
    a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + pairs)
    sin, cos = sincos(positions.astype(np.float64)[:, None] * frequencies.astype(np.float64))
    x, y = mean[a].astype(np.float64), mean[b].astype(np.float64)
    out[:, a], out[:, b] = x * cos - y * sin, y * cos + x * sin
    return out


def sincos(angle: Array) -> tuple[Array, Array]:
    """Sine and cosine, rounded to 32 bits, by the steps that the format defines."""
    n = np.floor(angle * float.fromhex("0x1.45f306dc9c883p-1") + 0.5)
    r = angle - n * float.fromhex("0x1.921fb544p+0") - n * float.fromhex("0x1.0b4611a626331p-34")
    z = r * r
    s: Any = 1.0 / 6227020800
    for k in (-1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6):
        s = s * z + k
    s = r + r * z * s
    c: Any = 1.0 / 479001600
    for k in (-1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -0.5, 1.0):
        c = c * z + k
    s, c = s.astype(np.float32).astype(np.float64), c.astype(np.float32).astype(np.float64)
    turn = n.astype(np.int64) & 3
    return np.choose(turn, [s, c, -s, -c]), np.choose(turn, [c, -s, -c, s])


def widen(bf16: Array) -> Array:
    """The numbers of BF16 bit patterns."""
    return (bf16.astype(np.uint32) << 16).view(np.float32)


def narrow(x: Array, dtype: str) -> Array:
    """Rounded to nearest, ties to even; BF16 as bit patterns."""
    if dtype == "F32":
        return x
    if dtype == "F16":
        with np.errstate(over="ignore"):  # beyond the largest is found by its being infinite
            return x.astype(np.float16)
    b = np.ascontiguousarray(x).view(np.uint32)
    return ((b + 0x7FFF + (b >> 16 & 1)) >> 16).astype(np.uint16)
