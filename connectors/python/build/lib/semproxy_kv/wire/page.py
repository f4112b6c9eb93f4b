"""A page: the keys and values of a run of tokens, as an engine sends them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import refuse
from .container import FLOATS, Tensor, dump, load
from .identity import MAX_INT, Identity, Metadata
from .rope import Rope

FORMAT = "semproxy.page.v1"
REQUIRED = ("k", "v", "token_ids", "positions")
OPTIONAL = ("k_scale", "v_scale", "q", "q_positions", "boundary", "protect", "importance")
BIAS = ("kernel", "folded")


@dataclass(kw_only=True)
class Page(Identity):
    """Keys after RoPE. Tensors are views of the caller's memory; docs/reference/wire-format.md has their types and shapes."""

    rope: Rope
    k: Tensor  # [layers, kv_heads, tokens, head_dim]
    v: Tensor  # as k
    token_ids: Tensor  # [tokens]
    positions: Tensor  # [tokens], strictly increasing
    k_scale: Tensor | None = None  # F32 [layers, kv_heads], FP8 only
    v_scale: Tensor | None = None
    q: Tensor | None = None  # [layers, q_heads, window, head_dim]: queries after RoPE
    q_positions: Tensor | None = None  # I32 or I64 [window], the queries' positions; absent: they are the last tokens'
    boundary: Tensor | None = None  # U8 [tokens]
    protect: Tensor | None = None  # U8 [tokens]
    importance: Tensor | None = None  # F32 [layers, kv_heads, tokens], how much a token is needed, from 0 on
    granule: int = 0  # a head's cores shall come in multiples of it; 0: any number
    folded: bool = False  # the sender's kernel adds no bias: the cores' keys shall carry it
    checksum: bool = True

    @property
    def tokens(self) -> int:
        return self.token_ids.shape[0]

    def encode(self) -> bytes:
        """The blob. Shapes and small tensors are checked here; whether k, v and q are finite is for the sidecar."""
        self.check()
        metadata = {**self.put(), "format": FORMAT, "dtype": self.k.dtype, "rope": self.rope.json()}
        if self.granule:
            metadata["granule"] = str(self.granule)
        if self.folded:
            metadata["bias"] = "folded"
        tensors = {name: t for name in REQUIRED + OPTIONAL if (t := getattr(self, name)) is not None}
        return dump(tensors, metadata, self.checksum)

    @staticmethod
    def decode(blob: bytes) -> Page:
        """Read a blob; what is not as the format demands is refused with its code."""
        tensors, values = load(blob)
        checksum = "checksum" in values
        m = Metadata(values)
        m.format(FORMAT)
        identity = m.identity()
        dtype, rope = m.text("dtype"), Rope.parse(m.text("rope"))
        granule = m.whole("granule") if "granule" in m.rest else 0
        bias = m.rest.pop("bias", "kernel")
        if bias not in BIAS:
            raise refuse("page.bad_metadata", 'metadata "bias"', repr(bias), " or ".join(BIAS))
        for name in tensors:
            if name not in REQUIRED + OPTIONAL:
                raise refuse("page.unknown_tensor", "the page", name, ", ".join(REQUIRED + OPTIONAL))
        for name in REQUIRED:
            if name not in tensors:
                raise refuse("page.missing_tensor", "the page", f'no tensor "{name}"', "it")
        if tensors["k"].dtype != dtype:
            raise refuse("page.bad_dtype", 'metadata "dtype"', dtype, f"that of k, {tensors['k'].dtype}")
        page = Page(**identity, extra=m.rest, rope=rope, checksum=checksum, folded=bias == "folded", granule=granule, **tensors)  # type: ignore[arg-type]
        page.check()
        return page

    def check(self) -> None:
        """Hold shapes, types, token ids and positions against the format."""
        k = self.k
        if k.dtype not in FLOATS:
            raise refuse("page.bad_dtype", 'tensor "k"', k.dtype, ", ".join(FLOATS))
        if len(k.shape) != 4 or 0 in k.shape[:2] + k.shape[3:]:
            raise refuse("page.bad_shape", 'tensor "k"', list(k.shape), "[layers, kv_heads, tokens, head_dim]")
        if k.shape[2] == 0:
            raise refuse("page.empty", "the page", "no token", "at least one")
        layers, heads, tokens, dim = k.shape
        self._want("v", self.v, (k.dtype,), k.shape)
        self._want("token_ids", self.token_ids, ("I32", "I64"), (tokens,))
        self._want("positions", self.positions, ("I32", "I64"), (tokens,))
        fp8 = k.dtype.startswith("F8")
        for name in ("k_scale", "v_scale"):
            scale = getattr(self, name)
            if (scale is not None) != fp8:
                raise refuse("page.bad_scale", f'tensor "{name}"', "a mismatch with " + k.dtype, "scales with FP8 and only then")
            if scale is not None:
                self._want(name, scale, ("F32",), (layers, heads))
        for name in ("boundary", "protect"):
            if (mark := getattr(self, name)) is not None:
                self._want(name, mark, ("U8",), (tokens,))
        q = self.q
        if q is not None and (len(q.shape) != 4 or q.shape[0] != layers or q.shape[1] % heads or q.shape[3] != dim or 0 in q.shape):
            raise refuse("page.bad_shape", 'tensor "q"', list(q.shape), f"[{layers}, n x {heads}, window, {dim}]")
        if self.q_positions is not None:
            if q is None:
                raise refuse("page.bad_shape", 'tensor "q_positions"', 'no tensor "q"', "both or neither")
            self._want("q_positions", self.q_positions, ("I32", "I64"), (q.shape[2],))
            asked = self.q_positions.numpy()
            if asked.min() < 0 or asked.max() > MAX_INT:
                raise refuse("page.bad_positions", 'tensor "q_positions"', int(asked.min()), "positions from 0 to 2^31-1")
        if not 0 <= self.granule <= 1024:
            raise refuse("page.bad_metadata", 'metadata "granule"', self.granule, "from 1 to 1024, or 0 for none")
        if self.importance is not None:
            self._want("importance", self.importance, ("F32",), (layers, heads, tokens))
            if not (np.isfinite(needed := self.importance.numpy()).all() and (needed >= 0).all()):
                raise refuse("page.not_finite", 'tensor "importance"', "others", "finite numbers from 0")
        ids, positions = self.token_ids.numpy(), self.positions.numpy()
        if ids.min() < 0 or ids.max() > MAX_INT:
            raise refuse("page.bad_token_ids", 'tensor "token_ids"', int(ids.min()), "ids from 0 to 2^31-1")
        if positions[0] < 0 or positions[-1] > MAX_INT or (np.diff(positions) <= 0).any():
            raise refuse("page.bad_positions", 'tensor "positions"', "others", "strictly increasing, from 0 to 2^31-1")
        if self.tokens_total < self.token_first + tokens:
            raise refuse("page.bad_metadata", 'metadata "tokens_total"', self.tokens_total, f"at least {self.token_first + tokens}")

    @staticmethod
    def _want(name: str, t: Tensor, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        if t.dtype not in dtypes:
            raise refuse("page.bad_dtype", f'tensor "{name}"', t.dtype, " or ".join(dtypes))
        if tuple(t.shape) != shape:
            raise refuse("page.bad_shape", f'tensor "{name}"', list(t.shape), list(shape))
