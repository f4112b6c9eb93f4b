"""Pages and cores are, byte for byte, those of the Go side; what is not as the format says is refused with its code."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DEMO, GOLDEN

from semproxy_kv import SemproxyError
from semproxy_kv.wire import Cores, Page, Rope, Tensor, fingerprint
from semproxy_kv.wire.container import dump, load
from semproxy_kv.wire.identity import go_float


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.safetensors")), ids=lambda f: f.stem)
def test_what_either_side_wrote_is_written_again_with_the_same_bytes(file: Path) -> None:
    blob = file.read_bytes()
    kind = Page if ".page." in file.name else Cores
    assert kind.decode(blob).encode() == blob


@pytest.mark.parametrize("name", ["go_coded4_bf16", "go_coded4_f16_whole", "go_coded8_f32_packed"])
def test_codes_stand_for_what_go_says_to_the_bit(name: str) -> None:
    got = Cores.decode((GOLDEN / f"{name}.cores.safetensors").read_bytes())
    want = Cores.decode((GOLDEN / f"{name}_plain.cores.safetensors").read_bytes())
    assert got.coded is not None
    assert want.coded is None
    for tensor in ("k", "v", "counts", "bias", "positions"):
        a, b = getattr(got, tensor), getattr(want, tensor)
        assert (a.dtype, tuple(a.shape)) == (b.dtype, tuple(b.shape)), tensor
        assert bytes(memoryview(a.data).cast("B")) == bytes(memoryview(b.data).cast("B")), tensor


@pytest.mark.parametrize(
    ("code", "name", "change"),
    [
        ("page.bad_metadata", "bits", "3"),
        ("page.bad_metadata", "interleaved", "yes"),
        ("page.bad_dtype", "dtype", "F8_E4M3"),
        ("page.missing_tensor", "v_scale", None),
        ("page.unknown_tensor", "v_mean", Tensor("BF16", (1,), b"12")),
        ("page.bad_shape", "v", Tensor("U8", (2, 2, 40, 4), bytes(640))),
        ("page.bad_dtype", "k", Tensor("I32", (2, 2, 40, 8), bytes(5120))),
        ("page.bad_scale", "k_scale", Tensor("BF16", (2, 2, 40), b"\x80\xff" * 160)),
        ("page.not_finite", "k_mean", Tensor("BF16", (2, 2, 64), b"\xc0\x7f" * 256)),
        ("page.not_finite", "v_scale", Tensor("BF16", (2, 2, 40), b"\x00\x7f" * 160)),
        ("page.bad_rope", "frequencies", Tensor.of(np.full(24, -1, np.float32))),
        ("page.bad_shape", "frequencies", Tensor.of(np.ones(33, np.float32))),
        ("page.bad_shape", "k_mean", None),
        ("page.bad_shape", "positions", Tensor.of(np.zeros(39, np.float32))),
    ],
)
def test_codes_that_cannot_be_right_are_refused(code: str, name: str, change: Any) -> None:
    tensors, metadata = load((GOLDEN / "go_coded4_f16_whole.cores.safetensors").read_bytes())
    if isinstance(change, str):
        metadata[name] = change
    elif change is None:
        del tensors[name]
    else:
        tensors[name] = change
    metadata.pop("checksum")
    with pytest.raises(SemproxyError) as e:
        Cores.decode(dump(tensors, metadata, checksum=True))
    assert e.value.code == code


def test_a_page_built_from_its_fields_is_the_one_that_go_built() -> None:
    blob = (GOLDEN / "go_llama3_bf16.page.safetensors").read_bytes()
    want, (loaded, _) = Page.decode(blob), load(blob)
    tensors: dict[str, Any] = {**loaded}
    page = Page(
        model=want.model,
        sequence=want.sequence,
        layout=want.layout,
        layer_first=want.layer_first,
        token_first=want.token_first,
        tokens_total=want.tokens_total,
        page=want.page,
        pages=want.pages,
        extra=want.extra,
        checksum=want.checksum,
        rope=Rope(
            "llama3",
            want.rope.theta,
            want.rope.rotary_dim,
            want.rope.interleaved,
            original_max_position=want.rope.original_max_position,
            factor=want.rope.factor,
            low_freq_factor=want.rope.low_freq_factor,
            high_freq_factor=want.rope.high_freq_factor,
        ),
        **tensors,
    )
    assert page.encode() == blob


@pytest.mark.parametrize("name", ["kjv", "kjv_facts", "kjv_long"])
def test_the_go_binary_answers_a_page_of_python_as_its_own(name: str, binary: str, tmp_path: Path) -> None:
    original = DEMO / f"{name}.page.safetensors"
    again = tmp_path / "page.safetensors"
    again.write_bytes(Page.decode(original.read_bytes()).encode())
    replies = []
    for i, file in enumerate((original, again)):
        out = tmp_path / f"{i}.cores.safetensors"
        subprocess.run([binary, "compress", str(file), "-o", str(out)], check=True, capture_output=True)
        replies.append(out.read_bytes())
    cores = [Cores.decode(blob) for blob in replies]
    assert cores[0].encode() == replies[0]
    assert np.array_equal(cores[0].k.numpy(), cores[1].k.numpy())
    assert replies[0] == replies[1]


def test_numbers_are_written_as_go_writes_them() -> None:
    # fmt: off
    wanted = {0.0: "0", 1.0: "1", 10000.0: "10000", 500000.0: "500000", 1e6: "1e+06", 1234567.5: "1.2345675e+06", 1e22: "1e+22",
              0.1: "0.1", 0.0001: "0.0001", 0.00001: "1e-05", 1.5e-7: "1.5e-07", 123456.5: "123456.5", 1e-300: "1e-300", -0.25: "-0.25"}
    # fmt: on
    assert {x: go_float(x) for x in wanted} == wanted


def test_a_fingerprint_is_the_one_of_the_go_side() -> None:
    # page.Fingerprint("vllm", "0.11.0", "BHTD", 16, 8, 128)
    assert fingerprint("vllm", "0.11.0", "BHTD", 16, 8, 128) == "vllm.0.11.0.BHTD.16x8x128.ce6564435dc3"
    assert fingerprint("a", "b", "c", 1, 2) != fingerprint("a", "b", "c", 12)


def page(**changes: Any) -> Page:
    k = np.ones((1, 1, 3, 4), np.float32)
    ids = Tensor.of(np.arange(3, dtype=np.int32))
    p = Page(
        model="m",
        sequence="s",
        layout="l",
        tokens_total=3,
        rope=Rope(rotary_dim=4),
        k=Tensor.of(k),
        v=Tensor.of(k),
        token_ids=ids,
        positions=ids,
    )
    return replace(p, **changes)


def of(*values: int) -> Tensor:
    return Tensor.of(np.array(values, np.int32))


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("page.bad_positions", {"positions": of(0, 2, 1)}),
        ("page.bad_positions", {"positions": of(-1, 2, 3)}),
        ("page.bad_token_ids", {"token_ids": of(0, -2, 1)}),
        ("page.bad_shape", {"token_ids": of(0, 1)}),
        ("page.bad_shape", {"v": Tensor.of(np.ones((1, 1, 3, 2), np.float32))}),
        ("page.bad_dtype", {"v": Tensor.of(np.ones((1, 1, 3, 4), np.float16))}),
        ("page.bad_scale", {"k_scale": Tensor.of(np.ones((1, 1), np.float32))}),
        ("page.bad_metadata", {"tokens_total": 2}),
        ("page.bad_metadata", {"model": ""}),
        ("page.bad_metadata", {"sequence": "a\nb"}),
        ("page.bad_rope", {"rope": Rope("mrope", rotary_dim=4)}),
    ],
)
def test_a_page_that_cannot_be_right_is_not_written(code: str, changes: dict[str, Any]) -> None:
    with pytest.raises(SemproxyError) as e:
        page(**changes).encode()
    assert e.value.code == code


def cores(**changes: Any) -> Cores:
    """Three cores and a padding of one head, for 4 tokens."""
    bias = np.log(np.array([[[1, 2, 1, 1]]], np.float32))
    bias[..., 3] = -np.inf
    k = Tensor.of(np.ones((1, 1, 4, 4), np.float32))
    c = Cores(
        model="m",
        sequence="s",
        layout="l",
        tokens_total=4,
        tokens=4,
        ratio=0.75,
        k=k,
        v=k,
        counts=Tensor.of(np.array([[[1, 2, 1, 0]]], np.int32)),
        bias=Tensor.of(bias),
        positions=Tensor.of(np.zeros((1, 1, 4), np.float32)),
    )
    return replace(c, **changes)


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("page.bad_counts", {"tokens": 5}),
        ("page.bad_counts", {"counts": Tensor.of(np.array([[[1, 0, 1, 2]]], np.int32))}),
        ("page.bad_counts", {"bias": Tensor.of(np.zeros((1, 1, 4), np.float32))}),
        ("page.bad_counts", {"dropped": Tensor.of(np.array([[1]], np.int32))}),
        ("page.bad_counts", {"assign": Tensor.of(np.array([[[0, 1, 2, 2]]], np.int32))}),
        ("page.bad_shape", {"positions": Tensor.of(np.zeros((1, 1, 3), np.float32))}),
        ("page.not_finite", {"k": Tensor.of(np.full((1, 1, 4, 4), np.nan, np.float32))}),
        ("page.bad_scale", {"k_scale": Tensor.of(np.ones((1, 1), np.float32))}),
    ],
)
def test_cores_that_do_not_account_for_every_token_are_refused(code: str, changes: dict[str, Any]) -> None:
    assert Cores.decode(cores().encode()).lengths().tolist() == [[3]]
    with pytest.raises(SemproxyError) as e:
        Cores.decode(cores(**changes).encode())
    assert e.value.code == code


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        ("page.truncated", lambda b: b[:4]),
        ("page.truncated", lambda b: b[:20]),
        ("page.bad_header", lambda b: b[:-1]),
        ("page.bad_header", lambda b: b.replace(b'"model"', b'"model')),
        ("page.bad_checksum", lambda b: b[:-1] + b"\x07"),
        ("page.bad_format", lambda b: b.replace(b"cores.v1", b"cores.v2")),
        ("page.too_large", lambda b: (1 << 40).to_bytes(8, "little") + b[8:]),
    ],
)
def test_a_damaged_blob_is_refused(code: str, damage: Any) -> None:
    with pytest.raises(SemproxyError) as e:
        Cores.decode(damage(cores().encode()))
    assert e.value.code == code


def test_eight_bit_patterns_that_are_no_numbers_are_found() -> None:
    for dtype, bad, good in (("F8_E4M3", 0x7F, 0x7E), ("F8_E5M2", 0x7C, 0x7B)):
        assert not Tensor(dtype, (1,), bytes([bad])).finite()
        assert Tensor(dtype, (1,), bytes([good])).finite()
    assert not Tensor("BF16", (1,), b"\x80\x7f").finite()


def test_a_repeated_key_is_refused() -> None:
    blob = dump({}, {"a": "1"}, checksum=False)
    text = blob[8:].replace(b'{"a":"1"}', b'{"a":"1","a":"2"}').rstrip()
    with pytest.raises(SemproxyError) as e:
        load(len(text).to_bytes(8, "little") + text)
    assert e.value.code == "page.bad_header"
