"""The container: a safetensors blob, written and read by the safetensors library, with its metadata sorted."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from ..errors import SemproxyError, refuse

PREFIX = 8  # bytes that give the header's length
MAX_HEADER = 64 << 10
MAX_BLOB = 1 << 30

# Names of the library for the element types of the format, and bytes of an element.
LIBRARY = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
}
SIZE = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1, "I32": 4, "I64": 8, "U8": 1}
FLOATS = ("BF16", "F16", "F32", "F8_E4M3", "F8_E5M2")
NUMPY: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"),
}


@dataclass(frozen=True)
class Tensor:
    """Elements of one type, row-major and little-endian. data is any contiguous buffer; the tensor does not own it."""

    dtype: str
    shape: tuple[int, ...]
    data: Any

    @staticmethod
    def of(array: npt.NDArray[Any]) -> Tensor:
        """A view of a numpy array; the element types that numpy has."""
        for name, dtype in NUMPY.items():
            if dtype == array.dtype:
                array = np.ascontiguousarray(array)
                return Tensor(name, array.shape, array.reshape(-1).view(np.uint8))
        raise refuse("page.bad_dtype", "a numpy array's type", array.dtype, "float16, float32, int32, int64 or uint8")

    def numpy(self) -> npt.NDArray[Any]:
        """The elements as a read-only array; BF16 and FP8 as their bit patterns."""
        dtype: np.dtype[Any] = NUMPY.get(self.dtype) or np.dtype({1: "u1", 2: "<u2"}[SIZE[self.dtype]])
        array: npt.NDArray[Any] = np.frombuffer(self.data, dtype=dtype).reshape(self.shape)
        return array

    def finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        bits = self.numpy()
        if self.dtype in ("F16", "F32"):
            return bool(np.isfinite(bits).all())
        exponent = {"BF16": 0x7F80, "F8_E5M2": 0x7C, "F8_E4M3": 0x7F}[self.dtype]
        return not bool(((bits & exponent) == exponent).any())


def dump(tensors: dict[str, Tensor], metadata: dict[str, str], checksum: bool) -> bytes:
    """The blob: deterministic, the same bytes as the Go side writes. With checksum the metadata gets the body's."""
    for name, t in tensors.items():
        want = math.prod(t.shape) * SIZE[t.dtype]
        if memoryview(t.data).nbytes != want:
            raise refuse("page.bad_shape", f'tensor "{name}" of {t.dtype} {list(t.shape)}', memoryview(t.data).nbytes, f"{want} bytes")
    if checksum:
        metadata = {**metadata, "checksum": "0" * 64}
    keep = {name: np.frombuffer(t.data, np.uint8) if t.shape else np.empty(0, np.uint8) for name, t in tensors.items()}
    blob = safetensors.serialize(
        {
            name: safetensors.TensorSpec(
                dtype=LIBRARY[t.dtype], shape=list(t.shape), data_ptr=keep[name].ctypes.data, data_len=keep[name].nbytes
            )
            for name, t in tensors.items()
        },
        metadata,
    )
    length = int.from_bytes(blob[:PREFIX], "little")
    if length > MAX_HEADER:
        raise refuse("page.too_large", "the header is too large", f"{length} bytes", f"at most {MAX_HEADER}")
    header = json.loads(blob[PREFIX : PREFIX + length])
    if checksum:
        metadata["checksum"] = hashlib.sha256(memoryview(blob)[PREFIX + length :]).hexdigest()
    header["__metadata__"] = dict(sorted(metadata.items()))  # the library's order is random
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return b"".join([blob[:PREFIX], text.ljust(length), memoryview(blob)[PREFIX + length :]])


def load(blob: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, which own their bytes, and the metadata."""
    if len(blob) < PREFIX:
        raise refuse("page.truncated", "the blob", f"{len(blob)} bytes", "at least 8")
    if len(blob) > MAX_BLOB:
        raise refuse("page.too_large", "the blob", f"{len(blob)} bytes", f"at most {MAX_BLOB}")
    length = int.from_bytes(blob[:PREFIX], "little")
    if length > MAX_HEADER:
        raise refuse("page.too_large", "the header", f"{length} bytes", f"at most {MAX_HEADER}")
    if PREFIX + length > len(blob):
        raise refuse("page.truncated", "the header", f"{len(blob) - PREFIX} bytes", f"{length}, as the blob says")
    try:
        header = json.loads(bytes(blob[PREFIX : PREFIX + length]), object_pairs_hook=_unique)
        found = safetensors.deserialize(bytes(blob))
    except SemproxyError:
        raise
    except Exception as e:
        raise SemproxyError("page.bad_header", f"the safetensors library refuses the blob: {e}") from None
    metadata = header.get("__metadata__", {})
    tensors = {}
    for name, t in found:
        if t["dtype"] not in SIZE:
            raise refuse("page.bad_dtype", f'tensor "{name}"', t["dtype"], ", ".join(SIZE))
        tensors[name] = Tensor(t["dtype"], tuple(t["shape"]), t["data"])
    want = metadata.get("checksum")
    if want is not None and hashlib.sha256(memoryview(blob)[PREFIX + length :]).hexdigest() != want:
        raise SemproxyError("page.bad_checksum", "the tensors are not the ones that were hashed")
    return tensors, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise SemproxyError("page.bad_header", "the header repeats a key")
    return dict(pairs)
