"""Cores in few bits: the tensors that are on the wire, made into those that a reader uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import refuse
from . import bits
from .container import Tensor

TENSORS = (
    "slots",
    "k",
    "v",
    "k_scale",
    "v_scale",
    "k_mean",
    "k_first",
    "v_first",
    "frequencies",
    "counts",
    "bias",
    "positions",
    "assign",
    "dropped",
)
DTYPES = ("BF16", "F16", "F32")
MAX_DIM = 1024


@dataclass(frozen=True)
class Coded:
    """What was read, to be written again as it was."""

    bits: int
    interleaved: bool
    tensors: dict[str, Tensor]


def expand(coded: Coded, dtype: str, folded: bool) -> dict[str, Tensor]:
    """k, v, counts, bias and positions of the plain form, of the codes and what follows from them."""
    t = coded.tensors
    for name in ("k", "v", "k_scale", "v_scale", "positions"):
        if name not in t:
            raise refuse("page.missing_tensor", "the cores", f'no tensor "{name}"', "it")
    k = t["k"]
    _want("k", k, "U8", None)
    if dtype not in DTYPES:
        raise refuse("page.bad_dtype", 'metadata "dtype" of coded cores', dtype, ", ".join(DTYPES))
    packed = t.get("slots")
    if len(k.shape) != (2 if packed is not None else 4) or 0 in k.shape[:-1]:
        raise refuse("page.bad_shape", 'tensor "k"', list(k.shape), "[entries, bytes]" if packed is not None else "4 dimensions")
    rows, dim = k.shape[:-1], k.shape[-1] * 8 // coded.bits
    if dim < 2 or dim % 2 or dim > MAX_DIM:
        raise refuse("page.bad_shape", "head_dim of the codes", dim, f"even, 2 to {MAX_DIM}")
    if packed is None:
        heads: tuple[int, ...] = rows[:2]
    elif packed.dtype != "I32" or len(packed.shape) != 2:
        raise refuse("page.bad_shape", 'tensor "slots"', list(packed.shape), "I32 [layers, kv_heads]")
    else:
        heads = packed.shape
    for name, kind, shape in (
        ("v", "U8", k.shape),
        ("k_scale", "BF16", rows),
        ("v_scale", "BF16", rows),
        ("k_mean", "BF16", (*heads, dim)),
        ("counts", "I32", rows),
        ("bias", "F32", rows),
    ):
        if name in t:
            _want(name, t[name], kind, shape)
    if ("k_first" in t) != ("v_first" in t):
        raise refuse("page.missing_tensor", "the cores", "one of k_first and v_first", "both or none")
    first = t["k_first"].shape[2] if "k_first" in t and len(t["k_first"].shape) == 4 else 0
    for name in ("k_first", "v_first"):
        if name in t:
            _want(name, t[name], dtype, (*heads, first, dim))
    if "k_first" in t and not 1 <= first <= (rows[2] if packed is None else max(packed.numpy().max(initial=0), 0)):
        raise refuse("page.bad_shape", 'tensor "k_first"', list(t["k_first"].shape), "as many entries as a head may have")
    frequencies = _frequencies(coded, dim)
    for name in ("k_scale", "v_scale"):
        if (t[name].numpy() >= 0x7F80).any():
            raise refuse("page.bad_scale", f'tensor "{name}"', "a scale that is negative or not finite", "finite and at least 0")
    if "k_mean" in t and not t["k_mean"].finite():
        raise refuse("page.not_finite", 'tensor "k_mean"', "NaN or infinity", "finite BF16")

    counts = t["counts"].numpy() if "counts" in t else np.ones(rows, np.int32)
    positions = t["positions"]
    if packed is None and positions.shape == rows[2:]:
        _want("positions", positions, "F32", positions.shape)
        at = np.broadcast_to(positions.numpy(), rows)
    else:
        _want("positions", positions, "F32", rows)
        at = positions.numpy()
    if "bias" in t:
        bias = t["bias"].numpy()
    else:
        with np.errstate(divide="ignore"):
            bias = np.log(np.maximum(counts, 0).astype(np.float64)).astype(np.float32)
        if folded:
            bias = np.where(counts > 0, np.float32(0), bias)
    out = {"counts": Tensor.of(counts), "bias": Tensor.of(bias), "positions": Tensor.of(np.ascontiguousarray(at))}
    for name in ("k", "v"):
        codes, scales = t[name].numpy().reshape(-1, t[name].shape[-1]), t[name + "_scale"].numpy().reshape(-1)
        x = bits.rows(codes, scales, coded.bits)
        if name == "k" and "k_mean" in t:
            x += _carried(coded, frequencies, at.reshape(-1), packed)
        x[counts.reshape(-1) == 0] = 0
        numbers = np.ascontiguousarray(bits.narrow(x, dtype))
        if first:
            exact = t[name + "_first"].numpy().reshape(-1, first, dim)
            for head, (begin, n) in enumerate(_spans(len(exact), len(numbers), packed)):
                numbers[begin : begin + min(n, first)] = exact[head, : min(n, first)]
        out[name] = Tensor(dtype, (*rows, dim), numbers.reshape(-1).view(np.uint8))
    return out


def _carried(coded: Coded, frequencies: bits.Array | None, at: bits.Array, packed: Tensor | None) -> bits.Array:
    """The mean of each row's head at the row's position."""
    means = bits.widen(coded.tensors["k_mean"].numpy())
    means = means.reshape(-1, means.shape[-1])
    spans = _spans(len(means), len(at), packed)
    return np.concatenate([bits.carrier(m, frequencies, coded.interleaved, at[b : b + n]) for m, (b, n) in zip(means, spans, strict=True)])


def _spans(heads: int, entries: int, packed: Tensor | None) -> list[tuple[int, int]]:
    """Where each head's entries begin, and how many they are."""
    lengths = np.full(heads, entries // heads) if packed is None else packed.numpy().reshape(-1)
    if (lengths < 0).any() or lengths.sum() != entries:
        raise refuse("page.bad_counts", 'tensor "slots"', f"a sum of {lengths.sum()}", f"{entries} entries")
    return [(int(end - n), int(n)) for n, end in zip(lengths, np.cumsum(lengths), strict=True)]


def _frequencies(coded: Coded, dim: int) -> bits.Array | None:
    t = coded.tensors.get("frequencies")
    if t is None:
        if coded.interleaved:
            raise refuse("page.bad_metadata", 'metadata "interleaved"', "no frequencies", "it only beside them")
        return None
    if len(t.shape) != 1 or not 1 <= t.shape[0] <= dim // 2 or "k_mean" not in coded.tensors:
        raise refuse("page.bad_shape", 'tensor "frequencies"', list(t.shape), f"[pairs], 1 to {dim // 2}, beside k_mean")
    _want("frequencies", t, "F32", t.shape)
    f = t.numpy()
    if not ((f >= 0) & (f <= 16)).all():
        raise refuse("page.bad_rope", 'tensor "frequencies"', "a number out of range", "0 to 16 radians per position")
    return f


def _want(name: str, t: Tensor, dtype: str, shape: tuple[int, ...] | None) -> None:
    if t.dtype != dtype:
        raise refuse("page.bad_dtype", f'tensor "{name}"', t.dtype, dtype)
    if shape is not None and tuple(t.shape) != tuple(shape):
        raise refuse("page.bad_shape", f'tensor "{name}"', list(t.shape), list(shape))
