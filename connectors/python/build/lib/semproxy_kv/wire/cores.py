"""Cores: what comes back for a page, padded or packed, in its own type or in few bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SemproxyError, refuse
from . import coded as codes
from .container import FLOATS, Tensor, dump, load
from .identity import Identity, Metadata, go_float

FORMAT = "semproxy.cores.v1"
REQUIRED = ("k", "v", "counts", "bias", "positions")
OPTIONAL = ("slots", "k_scale", "v_scale", "assign", "dropped")
TEXTS = ("policy", "policy_digest", "rule", "engine", "traceparent")


@dataclass(kw_only=True)
class Cores(Identity):
    """Merged entries with their counts. Of the packed form k and v are [entries, head_dim] and slots is there."""

    tokens: int  # tokens given
    ratio: float
    k: Tensor
    v: Tensor
    counts: Tensor  # I32
    bias: Tensor  # F32: ln(count), -inf for padding
    positions: Tensor  # F32: where the core's key is rotated to
    slots: Tensor | None = None  # I32 [layers, kv_heads], packed only
    k_scale: Tensor | None = None  # F32 [layers, kv_heads], FP8 only: stored value x scale = value
    v_scale: Tensor | None = None
    assign: Tensor | None = None  # I32 [layers, kv_heads, tokens]
    dropped: Tensor | None = None  # I32 [layers, kv_heads]
    policy: str = ""
    policy_digest: str = ""
    rule: str = ""
    engine: str = ""
    traceparent: str = ""
    coded: codes.Coded | None = None  # k and v in few bits, which is what encode writes; k and v are then what they stand for
    folded: bool = False  # the keys carry the bias: nothing is to be added
    fidelity: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def decode(blob: bytes) -> Cores:
        """Read and verify a blob: its checksum is there and right, and its counts account for every token."""
        tensors, values = load(blob)
        if "checksum" not in values:
            raise refuse("page.bad_metadata", 'metadata "checksum"', "nothing", "a value")
        m = Metadata(values)
        m.format(FORMAT)
        identity = m.identity()
        tokens, dtype, ratio = m.whole("tokens"), m.text("dtype"), float(m.text("ratio"))
        packed = m.rest.pop("packed", None)
        if packed not in (None, "true"):
            raise refuse("page.bad_metadata", 'metadata "packed"', repr(packed), "true, or nothing")
        folded = m.rest.pop("folded", None)
        if folded not in (None, "true"):
            raise refuse("page.bad_metadata", 'metadata "folded"', repr(folded), "true, or nothing")
        texts = {name: m.rest.pop(name, "") for name in TEXTS}
        prefix = "fidelity."
        fidelity = {k[len(prefix) :]: m.rest.pop(k) for k in sorted(m.rest) if k.startswith(prefix)}
        coded = _coded(m.rest, tensors)
        known = REQUIRED + OPTIONAL if coded is None else codes.TENSORS
        for name in tensors:
            if name not in known or (name == "slots" and not packed):
                raise refuse("page.unknown_tensor", "the cores", name, ", ".join(known))
        if packed and "slots" not in tensors:
            raise refuse("page.missing_tensor", "the cores", 'no tensor "slots"', "it")
        if coded is not None:
            rest = {name: t for name, t in tensors.items() if name in ("slots", "assign", "dropped")}
            tensors = {**rest, **codes.expand(coded, dtype, folded is not None)}
        for name in REQUIRED + (("slots",) if packed else ()):
            if name not in tensors:
                raise refuse("page.missing_tensor", "the cores", f'no tensor "{name}"', "it")
        if tensors["k"].dtype != dtype:
            raise refuse("page.bad_dtype", 'metadata "dtype"', dtype, f"that of k, {tensors['k'].dtype}")
        said: dict[str, Any] = {**identity, **texts, **tensors}
        cores = Cores(**said, extra=m.rest, tokens=tokens, ratio=ratio, fidelity=fidelity, folded=folded is not None, coded=coded)
        cores.check()
        return cores

    def encode(self) -> bytes:
        """The blob, byte for byte as the Go side writes it."""
        metadata = {
            **self.put(),
            "format": FORMAT,
            "dtype": self.k.dtype,
            "tokens": str(self.tokens),
            "ratio": go_float(self.ratio),
            **({"packed": "true"} if self.slots is not None else {}),
            **({"folded": "true"} if self.folded else {}),
            **{name: text for name in TEXTS if (text := getattr(self, name))},
            **{"fidelity." + name: text for name, text in self.fidelity.items()},
        }
        tensors = {name: t for name in REQUIRED + OPTIONAL if (t := getattr(self, name)) is not None}
        if self.coded is not None:
            metadata["bits"] = str(self.coded.bits)
            metadata.update({"interleaved": "true"} if self.coded.interleaved else {})
            tensors = self.coded.tensors
        return dump(tensors, metadata, checksum=True)

    @property
    def head_dim(self) -> int:
        return self.k.shape[-1]

    def grid(self) -> tuple[int, int]:
        """layers, kv_heads."""
        shape = self.k.shape if self.slots is None else self.slots.shape
        return shape[0], shape[1]

    def lengths(self) -> npt.NDArray[Any]:
        """Cores of each head without padding, [layers, kv_heads]."""
        if self.slots is not None:
            return self.slots.numpy()
        counted: npt.NDArray[Any] = (self.counts.numpy() > 0).sum(-1)
        return counted

    def rows(self) -> Iterator[tuple[int, int, slice]]:
        """(layer, head, rows): the rows of each head, without padding, in tensors flattened to [-1, ...]."""
        lengths, at = self.lengths(), 0
        for (layer, head), n in np.ndenumerate(lengths):
            yield layer, head, slice(at, at + int(n))
            at += int(n) if self.slots is not None else self.counts.shape[2]

    def check(self) -> None:
        """Hold shapes, types and numbers against the format: nothing was lost without being said."""
        k, packed = self.k, self.slots is not None
        if k.dtype not in FLOATS:
            raise refuse("page.bad_dtype", 'tensor "k"', k.dtype, ", ".join(FLOATS))
        if len(k.shape) != (2 if packed else 4):
            raise refuse("page.bad_shape", 'tensor "k"', list(k.shape), "[entries, head_dim]" if packed else "4 dimensions")
        if 0 in k.shape or self.tokens == 0:
            raise refuse("page.empty", "the cores", f"{self.tokens} tokens, k of {list(k.shape)}", "a token and a core")
        if self.slots is not None:
            if self.slots.dtype != "I32" or len(self.slots.shape) != 2:
                raise refuse("page.bad_shape", 'tensor "slots"', list(self.slots.shape), "I32 [layers, kv_heads]")
            slots = self.slots.numpy()
            if not slots.size or (slots < 1).any() or slots.sum() != k.shape[0]:
                raise refuse("page.bad_counts", 'tensor "slots"', f"a sum of {slots.sum()}", f"{k.shape[0]} entries")
        heads, rows = self.grid(), k.shape[:-1]
        wanted = {
            "v": (k.dtype, k.shape),
            "counts": ("I32", rows),
            "bias": ("F32", rows),
            "positions": ("F32", rows),
            "k_scale": ("F32", heads),
            "v_scale": ("F32", heads),
            "assign": ("I32", (*heads, self.tokens)),
            "dropped": ("I32", heads),
        }
        for name, (dtype, shape) in wanted.items():
            t = getattr(self, name)
            if t is not None and t.dtype != dtype:
                raise refuse("page.bad_dtype", f'tensor "{name}"', t.dtype, dtype)
            if t is not None and tuple(t.shape) != tuple(shape):
                raise refuse("page.bad_shape", f'tensor "{name}"', list(t.shape), list(shape))
        for scale in (self.k_scale, self.v_scale):
            if (scale is not None) != k.dtype.startswith("F8"):
                raise SemproxyError("page.bad_scale", "scales come with FP8 and only then")
            if scale is not None and not (np.isfinite(s := scale.numpy()).all() and (s > 0).all()):
                raise SemproxyError("page.bad_scale", "a scale is not finite and positive")
        for name in ("k", "v", "positions"):
            if not getattr(self, name).finite():
                raise SemproxyError("page.not_finite", f'tensor "{name}" holds NaN or infinity')
        self._check_counts()

    def _check_counts(self) -> None:
        counts, bias = self.counts.numpy(), self.bias.numpy()
        padding = counts == 0
        if (counts < 0).any() or (self.slots is not None and padding.any()):
            raise SemproxyError("page.bad_counts", "a count is negative, or padding in the packed form")
        if not (np.isneginf(bias) == padding).all() or np.isnan(bias).any() or np.isposinf(bias).any():
            raise SemproxyError("page.bad_counts", "bias must be -inf for padding and finite for the rest")
        if self.folded and (bias[~padding] != 0).any():
            raise SemproxyError("page.bad_counts", "a bias would be added a second time: the keys are folded")
        if self.slots is None and (padding[..., :-1] & ~padding[..., 1:]).any():
            raise SemproxyError("page.bad_counts", "padding stands before a core")
        dropped = np.zeros(self.grid(), np.int64) if self.dropped is None else self.dropped.numpy()
        flat = counts.reshape(-1)
        assign = None if self.assign is None else self.assign.numpy()
        for layer, head, rows in self.rows():
            n, lost = int(flat[rows].sum()), int(dropped[layer, head])
            if lost < 0 or n == 0 or n + lost != self.tokens:
                got = f"{n} tokens in cores and {lost} dropped"
                raise refuse("page.bad_counts", f"layer {layer}, head {head}", got, f"{self.tokens} in all")
            if assign is not None:
                mine = assign[layer, head]
                cores = rows.stop - rows.start
                if mine.min() < -1 or mine.max() >= cores or (np.bincount(mine + 1, minlength=cores + 1) != [lost, *flat[rows]]).any():
                    raise refuse("page.bad_counts", f'tensor "assign" at layer {layer}, head {head}', "others", "the counts")


def _coded(rest: dict[str, str], tensors: dict[str, Tensor]) -> codes.Coded | None:
    """Takes what says that the cores are coded out of the metadata."""
    bits, interleaved = rest.pop("bits", None), rest.pop("interleaved", None)
    if bits not in (None, "4", "8"):
        raise refuse("page.bad_metadata", 'metadata "bits"', repr(bits), "4, 8, or nothing")
    if interleaved not in (None, "true") or (interleaved and bits is None):
        raise refuse("page.bad_metadata", 'metadata "interleaved"', repr(interleaved), "true, beside bits, or nothing")
    return None if bits is None else codes.Coded(int(bits), interleaved is not None, tensors)
