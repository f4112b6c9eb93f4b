"""The function "tgi" of transformers with a paged cache that is laid out as TGI's; TGI itself is not on PyPI."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import missing

try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from semproxy_kv import UnsupportedModel, tgi
except ImportError:
    missing("torch", "torch and transformers are not installed")

LAYERS, HEADS, KV, DIM, BLOCK, BLOCKS = 2, 4, 2, 16, 4, 24


class Cache:
    """text_generation_server.layers.attention.kv_cache.KVCache with ATTENTION=flashdecoding."""

    def __init__(self, order: str = "BTHD") -> None:
        shape = (BLOCKS, BLOCK, KV, DIM) if order == "BTHD" else (BLOCKS, KV, DIM // 4, BLOCK, 4)
        self.key, self.value = torch.randn(2, *shape)

    def store(self, *, key: Any, value: Any, slots: Any, kv_scales: Any) -> None:
        self.key.view(-1, KV, DIM)[slots] = key
        self.value.view(-1, KV, DIM)[slots] = value


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=64, hidden_size=HEADS * DIM, intermediate_size=32, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV, max_position_embeddings=128, attn_implementation="sdpa",
    )  # fmt: skip
    monkeypatch.setattr(tgi, "_original", None)
    tgi.install()
    yield LlamaForCausalLM(config).eval()
    del ALL_ATTENTION_FUNCTIONS[tgi.NAME]


def paged(
    model: Any, rows: list[list[int]], before: list[int], caches: list[Cache], tables: torch.Tensor, positions: list[int] | None = None
) -> Any:
    """Logits of the tokens in rows, one sequence behind the other, as TGI's _model_forward calls a model."""
    lengths = [len(row) for row in rows]
    slots = [int(tables[i][p // BLOCK]) * BLOCK + p % BLOCK for i, row in enumerate(rows) for p in range(before[i], before[i] + len(row))]
    places = [p + (positions[i] if positions else before[i]) for i, row in enumerate(rows) for p in range(len(row))]
    prefill = lengths != [1] * len(rows)
    model.set_attn_implementation("tgi")
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([[t for row in rows for t in row]]), position_ids=torch.tensor([places]), use_cache=False,
            kv_cache=caches, kv_head_mapping=None, slots=torch.tensor(slots), block_tables=tables, max_s=99, kv_scales=None,
            cu_seqlen_prefill=torch.tensor([0, *lengths]).cumsum(0) if prefill else None,
            seqlen=SimpleNamespace(input_lengths=torch.tensor(lengths), cache_lengths=torch.tensor(before)),
        ).logits[0]  # fmt: skip


def plain(model: Any, ids: list[int]) -> Any:
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


TABLES = torch.tensor([[7, 3, 12, 5, 1, 9], [2, 8, 15, 11, 4, 20]])
A, B = [5, 9, 3, 44, 21, 60, 2, 17, 33], [8, 1, 50, 12, 7]


def test_sequences_side_by_side_are_each_by_themselves(model: Any) -> None:
    caches = [Cache() for _ in range(LAYERS)]
    got = paged(model, [A, B], [0, 0], caches, TABLES)
    assert torch.allclose(got[: len(A)], plain(model, A), atol=1e-4)
    assert torch.allclose(got[len(A) :], plain(model, B), atol=1e-4)
    step = paged(model, [[30], [31]], [len(A), len(B)], caches, TABLES)
    assert torch.allclose(step[0], plain(model, [*A, 30])[-1], atol=1e-4)
    assert torch.allclose(step[1], plain(model, [*B, 31])[-1], atol=1e-4)


def test_equal_entries_are_one_core_and_padding_is_inert(model: Any) -> None:
    """A cache that holds an entry four times, and one that holds it once with ln 4, and padding."""
    many, one = ([Cache() for _ in range(LAYERS)] for _ in range(2))
    keys, values = torch.randn(2, LAYERS, 6, KV, DIM)
    for i in range(LAYERS):
        rows = torch.tensor([0, 0, 0, 0, 1, 2, 3, 4, 5])
        slots = torch.tensor([int(TABLES[0][p // BLOCK]) * BLOCK + p % BLOCK for p in range(9)])
        tgi.put(many[i], slots, keys[i][rows], values[i][rows], torch.zeros(9, KV))
        bias = torch.tensor([math.log(4), 0, 0, 0, 0, 0, -math.inf, -math.inf])[:, None].expand(-1, KV)
        slots = torch.tensor([int(TABLES[0][p // BLOCK]) * BLOCK + p % BLOCK for p in range(8)])
        padded = [torch.cat([t[i], torch.zeros(2, KV, DIM)]) for t in (keys, values)]
        tgi.put(one[i], slots, padded[0], padded[1], bias)
    full = paged(model, [A], [9], many, TABLES, positions=[40])
    small = paged(model, [A], [8], one, TABLES, positions=[40])
    assert torch.allclose(full, small, atol=1e-4)


def test_a_slot_that_is_written_to_is_a_tokens_again(model: Any) -> None:
    caches = [Cache() for _ in range(LAYERS)]
    for cache in caches:
        tgi.put(
            cache,
            torch.arange(BLOCKS * BLOCK),
            torch.zeros(BLOCKS * BLOCK, KV, DIM),
            torch.zeros(BLOCKS * BLOCK, KV, DIM),
            torch.ones(1, KV) * 3,
        )
    assert torch.allclose(paged(model, [A], [0], caches, TABLES), plain(model, A), atol=1e-4)
    assert int((getattr(caches[0], tgi.BIAS) == 0).all(-1).sum()) == len(A)


def test_caches_without_cores_go_through_tgis_own_function(model: Any) -> None:
    seen = []

    def own(module: Any, q: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((module.layer_idx, kwargs["softmax_scale"]))
        return torch.zeros(q.shape[2], HEADS * DIM), None

    ALL_ATTENTION_FUNCTIONS[tgi.NAME] = own
    tgi.install()
    tgi.install()
    paged(model, [A], [0], [Cache() for _ in range(LAYERS)], TABLES)
    assert [layer for layer, _ in seen] == [0, 1]


def test_caches_of_another_layout_are_refused(model: Any) -> None:
    with pytest.raises(UnsupportedModel, match="flashdecoding"):
        tgi.put(Cache("paged"), torch.tensor([0]), torch.zeros(1, KV, DIM), torch.zeros(1, KV, DIM), torch.zeros(1, KV))
