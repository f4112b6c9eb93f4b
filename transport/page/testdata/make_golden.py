"""Golden blobs made by, and read by, Python's safetensors library.

    make_golden.py write DIR     write py_*.safetensors into DIR (deterministic)
    make_golden.py read FILE...  print what the library finds in each file, as JSON

The Go tests build the same pages and cores (build_test.go, golden_test.go) and demand the same bytes.
"""

import ctypes
import hashlib
import json
import struct
import sys
from pathlib import Path

import safetensors

NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
         "I32": "int32", "I64": "int64", "U8": "uint8"}
SIZES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1}


def pattern(dtype, n, seed):
    """n finite elements, bit for bit those of pattern in build_test.go."""
    out = bytearray()
    for i in range(n):
        x = ((i + 1) * 2654435761 + seed * 40503) & 0xFFFFFFFF
        size = SIZES[dtype]
        if size == 1:
            out += struct.pack("<B", (x >> 13) & 0xBF)
        elif size == 2:
            out += struct.pack("<H", (x >> 11) & 0xBFFF)
        else:
            out += struct.pack("<I", x & 0xBFFFFFFF)
    return bytes(out)


def pack(kind, values):
    return struct.pack(f"<{len(values)}{kind}", *values)


def scales():
    return ("F32", [2, 2], pack("f", [0.5, 0.75, 1.0, 1.25]))


def metadata(fmt, dtype):
    return {"format": fmt, "model": "llama-3-8b", "sequence": "request-1", "layout": "hf.llama.LHTD", "layer_first": "4",
            "token_first": "16", "tokens_total": "64", "page": "1", "pages": "4", "dtype": dtype}


def page(dtype, full, wide=False):
    meta = metadata("semproxy.page.v1", dtype)
    meta["rope"] = '{"type":"default","theta":10000,"rotary_dim":4,"interleaved":false}'
    kind, letter = ("I64", "q") if wide else ("I32", "i")
    tensors = {
        "k": (dtype, [2, 2, 5, 4], pattern(dtype, 80, 1)),
        "v": (dtype, [2, 2, 5, 4], pattern(dtype, 80, 2)),
        "token_ids": (kind, [5], pack(letter, [5, 0, 7, 5, 1279])),
        "positions": (kind, [5], pack(letter, [16, 17, 18, 20, 21])),
    }
    if dtype.startswith("F8"):
        tensors["k_scale"] = tensors["v_scale"] = scales()
    if full:
        tensors["q"] = (dtype, [2, 4, 3, 4], pattern(dtype, 96, 3))
        tensors["boundary"] = ("U8", [5], bytes([0, 1, 0, 0, 1]))
        tensors["protect"] = ("U8", [5], bytes([1, 0, 0, 0, 0]))
        meta["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return meta, tensors, full


def cores(dtype, packed=False, evicted=False):
    meta = metadata("semproxy.cores.v1", dtype)
    meta |= {"tokens": "5", "policy": "acme/balanced", "policy_digest": "9f86d081", "rule": "rules[1]", "engine": "cpu:avx512",
             "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "ratio": "0.55",
             "fidelity.attention_error": "0.031", "fidelity.key_similarity": "0.98"}
    low, mid, high = 0.6931472, 1.0986123, 1.3862944
    tensors = {
        "k": (dtype, [2, 2, 3, 4], pattern(dtype, 48, 4)),
        "v": (dtype, [2, 2, 3, 4], pattern(dtype, 48, 5)),
        "counts": ("I32", [2, 2, 3], pack("i", [1, 3, 1, 2, 2, 1, 1, 1, 3, 4, 1, 0])),
        "bias": ("F32", [2, 2, 3], pack("f", [0, mid, 0, low, low, 0, 0, 0, mid, high, 0, float("-inf")])),
        "positions": ("F32", [2, 2, 3], pack("f", [16, 18.25, 21, 16.5, 19, 21, 16, 17, 19.75, 17.75, 21, 0])),
        "assign": ("I32", [2, 2, 5], pack("i", [0, 1, 1, 1, 2, 0, 0, 1, 1, 2, 0, 1, 2, 2, 2, 0, 0, 0, 0, 1])),
    }
    if packed:  # 1, 3, 5 and 2 cores instead of 3, 3, 3 and 2 with one of padding
        meta["packed"] = "true"
        tensors |= {
            "slots": ("I32", [2, 2], pack("i", [1, 3, 5, 2])),
            "k": (dtype, [11, 4], pattern(dtype, 44, 6)),
            "v": (dtype, [11, 4], pattern(dtype, 44, 7)),
            "counts": ("I32", [11], pack("i", [5, 2, 2, 1, 1, 1, 1, 1, 1, 4, 1])),
            "bias": ("F32", [11], pack("f", [1.609438, low, low, 0, 0, 0, 0, 0, 0, high, 0])),
            "positions": ("F32", [11], pack("f", [18.5, 16.5, 19, 21, 16, 17, 18, 20, 21, 17.75, 21])),
            "assign": ("I32", [2, 2, 5], pack("i", [0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 1, 2, 3, 4, 0, 0, 0, 0, 1])),
        }
    if evicted:  # the heads 0/1 and 1/0 drop one token and two
        tensors["dropped"] = ("I32", [2, 2], pack("i", [0, 1, 2, 0]))
        tensors["counts"] = ("I32", [2, 2, 3], pack("i", [1, 3, 1, 2, 1, 1, 1, 1, 1, 4, 1, 0]))
        tensors["bias"] = ("F32", [2, 2, 3], pack("f", [0, mid, 0, low, 0, 0, 0, 0, 0, high, 0, float("-inf")]))
        tensors["assign"] = ("I32", [2, 2, 5], pack("i", [0, 1, 1, 1, 2, 0, 0, 1, -1, 2, 0, 1, -1, 2, -1, 0, 0, 0, 0, 1]))
    if evicted and packed:  # 1, 3, 3 and 2 cores
        tensors |= {
            "slots": ("I32", [2, 2], pack("i", [1, 3, 3, 2])),
            "k": (dtype, [9, 4], pattern(dtype, 36, 6)),
            "v": (dtype, [9, 4], pattern(dtype, 36, 7)),
            "counts": ("I32", [9], pack("i", [5, 2, 1, 1, 1, 1, 1, 4, 1])),
            "bias": ("F32", [9], pack("f", [1.609438, low, 0, 0, 0, 0, 0, high, 0])),
            "positions": ("F32", [9], pack("f", [18.5, 16.5, 19, 21, 16, 17, 18, 17.75, 21])),
            "assign": ("I32", [2, 2, 5], pack("i", [0, 0, 0, 0, 0, 0, 0, 1, -1, 2, 0, 1, -1, 2, -1, 0, 0, 0, 0, 1])),
        }
    if dtype.startswith("F8"):
        tensors["k_scale"] = tensors["v_scale"] = scales()
    return meta, tensors, True


CASES = {
    "py_f16.page": page("F16", full=True),
    "py_f32.page": page("F32", full=False),
    "py_bf16_i64.page": page("BF16", full=False, wide=True),
    "py_f8e4m3.page": page("F8_E4M3", full=True),
    "py_f8e5m2.page": page("F8_E5M2", full=False),
    "py_bf16.cores": cores("BF16"),
    "py_f8e4m3.cores": cores("F8_E4M3"),
    "py_f16_packed.cores": cores("F16", packed=True),
    "py_f8e5m2_packed.cores": cores("F8_E5M2", packed=True),
    "py_bf16_dropped.cores": cores("BF16", evicted=True),
    "py_f8e4m3_packed_dropped.cores": cores("F8_E4M3", packed=True, evicted=True),
}


def serialize(tensors, meta):
    """The library's own bytes, through either generation of its interface."""
    if hasattr(safetensors, "TensorSpec"):
        keep = {n: ctypes.create_string_buffer(data, len(data)) for n, (_, _, data) in tensors.items()}
        specs = {n: safetensors.TensorSpec(dtype=NAMES[d], shape=shape, data_ptr=ctypes.addressof(keep[n]), data_len=len(data))
                 for n, (d, shape, data) in tensors.items()}
    else:
        specs = {n: {"dtype": NAMES[d], "shape": shape, "data": data} for n, (d, shape, data) in tensors.items()}
    return bytes(safetensors.serialize(specs, meta))


def split(blob):
    n = struct.unpack("<Q", blob[:8])[0]
    return json.loads(blob[8 : 8 + n]), blob[8 + n :]


def sort_metadata(blob):
    """The library writes the metadata in random order: sort it, and change nothing else."""
    header, body = split(blob)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    n = len(blob) - len(body) - 8
    return struct.pack("<Q", n) + text.ljust(n) + body


def write(folder):
    for name, (meta, tensors, checksum) in CASES.items():
        meta = dict(meta)
        if checksum:
            meta["checksum"] = hashlib.sha256(split(serialize(tensors, meta))[1]).hexdigest()
        (Path(folder) / f"{name}.safetensors").write_bytes(sort_metadata(serialize(tensors, meta)))


def read(files):
    found = {}
    for file in files:
        blob = Path(file).read_bytes()
        tensors = {}
        for name, t in safetensors.deserialize(blob):
            tensors[name] = {"dtype": t["dtype"], "shape": list(t["shape"]), "sha256": hashlib.sha256(t["data"]).hexdigest()}
        with safetensors.safe_open(file, framework="np") as f:
            found[Path(file).name] = {"metadata": f.metadata(), "tensors": tensors}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "write":
        write(sys.argv[2])
    elif len(sys.argv) > 2 and sys.argv[1] == "read":
        read(sys.argv[2:])
    else:
        sys.exit(__doc__)
