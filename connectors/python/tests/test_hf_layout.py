"""How cores lie for attention: heads in groups, tokens in buffers, queries from the whole prompt, pages of any size."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import pytest
from conftest import missing

try:
    import torch
    from test_hf_exact import build, ids_of, prefill, swapped
    from transformers import DynamicCache

    from semproxy_kv import SemproxyError
    from semproxy_kv.hf import CompressedLayer, capture_queries, install
    from semproxy_kv.hf import attention as attention_module
    from semproxy_kv.hf.capture import Queries
    from semproxy_kv.hf.compress import _snapshot
    from semproxy_kv.hf.layer import GROW, PREFIX
    from semproxy_kv.hf.pages import assemble, encode, parts
    from semproxy_kv.hf.prefix import Prefix, grouped
    from semproxy_kv.wire import Page, Rope
except ImportError:
    missing("torch", "torch and transformers are not installed")


def ragged(lengths: list[list[int]], dim: int = 16, folded: bool = False) -> Prefix:
    """Random cores, lengths[sequence][head] of them, with padding before, between and behind."""
    g = torch.Generator().manual_seed(5)
    width, n = max(map(max, lengths)) + 3, sum(map(sum, lengths))
    shape = len(lengths), len(lengths[0]), width
    rows, bias = torch.zeros(shape, dtype=torch.int32), torch.full(shape, float("-inf"))
    at = 0
    for b, row in enumerate(lengths):
        for h, count in enumerate(row):
            where = sorted(random.Random(b * 31 + h).sample(range(width), count))
            rows[b, h, where] = torch.arange(at, at + count, dtype=torch.int32)
            bias[b, h, where] = 0.0 if folded else torch.rand(count, generator=g) * 3
            at += count
    keys, values = (torch.randn(n, dim, generator=g) for _ in range(2))
    return Prefix(keys, values, rows, bias, torch.rand(shape, generator=g), 100)


def by_hand(q: Any, p: Prefix, k: Any, v: Any, mask: Any, scale: float) -> Any:
    """The same attention, one query head at a time, in float64."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    group = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for head in range(q.shape[1]):
            h = head // group
            real = torch.isfinite(p.bias[b, h])
            keys = torch.cat([p.keys[p.rows[b, h][real].long()], k[b, h]]).double()
            values = torch.cat([p.values[p.rows[b, h][real].long()], v[b, h]]).double()
            scores = q[b, head].double() @ keys.T * scale
            scores[:, : int(real.sum())] += p.bias[b, h][real].double()
            scores[:, int(real.sum()) :] += mask[b if mask.shape[0] > 1 else 0, 0].double()
            out[b, head] = scores.softmax(-1) @ values
    return out.transpose(1, 2)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("lengths", [[[40, 40]], [[3, 90], [41, 44]], [[1, 2], [50, 7], [49, 8]]])
def test_parts_attended_apart_are_attention_over_all(
    lengths: list[list[int]], kernel: bool, queries: int, folded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = ragged(lengths, folded=folded)
    before = copy.deepcopy(p)
    g = torch.Generator().manual_seed(2)
    batch, tokens = len(lengths), queries + 6
    q = torch.randn(batch, 6, queries, 16, generator=g, requires_grad=not kernel)  # gradients: without torch's own kernel
    k, v = (torch.randn(batch, 2, tokens, 16, generator=g) for _ in range(2))
    later = ~torch.ones(queries, tokens, dtype=torch.bool).tril(tokens - queries)
    mask = torch.zeros(1, 1, queries, tokens).masked_fill(later, float("-inf"))
    setattr(k, PREFIX, p)
    monkeypatch.setattr(attention_module, "MOST_SCORES", 1000)  # so that it goes in steps

    class Module:
        layer_idx = 0

    want = by_hand(q.detach(), before, k, v, mask, 0.25)
    got, _ = attention_module.attention(Module(), q, k, v, None, scaling=0.25)
    assert torch.allclose(got.detach().double(), want, atol=1e-5)
    again, _ = attention_module.attention(Module(), q, k, v, mask, scaling=0.25)  # laid out by now, with a mask given
    assert torch.allclose(again.detach().double(), want, atol=1e-5)
    assert p.entries() == before.entries() == sum(map(sum, lengths))
    if folded and len({n for row in lengths for n in row}) == 1:
        assert all(group.bias is None for group in p.layout().groups)  # nothing is added where nothing needs to be


def test_padding_of_groups_is_bounded() -> None:
    rng = random.Random(7)
    for _ in range(200):
        lengths = [rng.choice([rng.randint(1, 4000), rng.randint(900, 1100)]) for _ in range(rng.randint(1, 64))]
        groups = grouped(lengths)
        assert sorted(i for share, _ in groups for i in share) == list(range(len(lengths)))
        for share, width in groups:
            held = sum(lengths[i] for i in share)
            assert width == max(lengths[i] for i in share)
            assert width * len(share) * 0.9 <= held
    assert len(grouped([1000] * 24)) == 1


def test_a_step_copies_nothing_and_writes_into_no_other_cache() -> None:
    model = build()
    full = prefill(model, ids_of(1, 40))
    kept = copy.deepcopy(full)
    cache = swapped(model, full, 30, torch.ones(30), list(range(30)))
    layer = cache.layers[0]
    assert isinstance(layer, CompressedLayer)
    layer.crop(4)
    buffers = []
    with torch.no_grad():
        for i in range(GROW + 50):
            model(ids_of(1, 1), cache=cache, position_ids=torch.tensor([[36 + i]]))
            buffers.append((layer._keys.data_ptr(), layer._values.data_ptr()))
    new = [i for i, (a, b) in enumerate(itertools.pairwise(buffers), 1) if a != b]
    assert new == [GROW + 1], "new buffers are made when the first ones are full, and at no other step"
    assert all(torch.equal(a.keys, b.keys) for a, b in zip(full.layers, kept.layers, strict=True))


def test_what_was_sent_is_not_written_over() -> None:
    """A cache that is cut and goes another way while its pages are under way: they keep what they were."""
    model = build()
    full = prefill(model, ids_of(1, 40))
    cache = swapped(model, full, 30, torch.ones(30), list(range(30)))
    with torch.no_grad():
        model(ids_of(1, 5), cache=cache, position_ids=torch.arange(40, 45)[None])
        snapshot = _snapshot(model, cache, ids_of(1, 45), None, None)
        sent = [k.clone() for k in snapshot.keys]
        for layer in cache.layers:
            layer.crop(4)
        model(ids_of(1, 9)[:, 5:], cache=cache, position_ids=torch.arange(41, 45)[None])
    assert all(torch.equal(a, b) for a, b in zip(snapshot.keys, sent, strict=True))
    assert not torch.equal(cache.layers[0].keys, sent[0])


def test_queries_come_from_the_whole_prompt() -> None:
    model = build()
    install(model)
    for chunks in ([300], [128, 128, 44], [1] * 300):
        cache = DynamicCache(config=model.config)
        ids, at = ids_of(2, 300), 0
        with torch.no_grad(), capture_queries() as queries:
            for n in chunks:
                model(ids[:, at : at + n], cache=cache)
                at += n
        assert queries[0].shape == (2, 4, 16, 16)
        early = queries.strided(0, 0, 300)
        assert len(early) == 48
        assert early[0][0] < 10
        assert early[-1][0] >= 275
        assert max(i for i, _ in early) < 284
        gaps = {b[0] - a[0] for a, b in itertools.pairwise(early)}
        assert max(gaps) <= 12
        if len(chunks) == 1:
            want = dict(early)
        assert all(torch.allclose(q, want[i], atol=1e-4) for i, q in early if i in want)

    snapshot = _snapshot(model, cache, ids, None, None)
    snapshot.queries = queries
    pieces = parts(snapshot, 60_000, None)
    assert len(pieces) > 2
    for blob in encode(snapshot, pieces, "m", "l", Rope(rotary_dim=16), "s"):
        assert len(blob) <= 60_000
        page = Page.decode(blob)
        assert page.q is not None
        assert page.q_positions is not None
        positions = page.q_positions.numpy()
        assert page.q.shape[2] == len(positions) == 64
        assert positions[-1] == 299
        assert list(positions) == sorted(set(positions.tolist()))
        assert positions[0] < 10


def test_queries_of_another_sequence_are_not_mixed() -> None:
    model = build()
    install(model)
    with torch.no_grad(), capture_queries(16, 8) as queries:
        model(ids_of(1, 100), cache=DynamicCache(config=model.config))
        model(ids_of(1, 40), cache=DynamicCache(config=model.config))
    assert queries.end[0] == 40
    assert all(i < 24 for i, _ in queries.strided(0, 0, 40))
    assert isinstance(queries, Queries)


@pytest.mark.parametrize("most", [3_000_000, 700_000, 90_000, 21_000, 15_000])
def test_every_page_fits_whatever_the_limit(most: int) -> None:
    """Shapes and positions of pages of every size; put together as they are, they are the cache."""
    model = build()
    ids = ids_of(2, 200)
    mask = torch.ones(2, 200, dtype=torch.long)
    mask[0, :70] = 0
    full = prefill(model, ids, mask)
    snapshot = _snapshot(model, full, ids, mask, None)
    pieces = parts(snapshot, most, None)
    seen: dict[tuple[int, int], int] = {}
    for part, blob in zip(pieces, encode(snapshot, pieces, "m", "l", Rope(rotary_dim=16), "s"), strict=True):
        assert len(blob) <= most
        page = Page.decode(blob)
        padding = 70 if part.row == 0 else 0
        assert page.positions.numpy()[0] == page.token_first == part.tokens.start - padding
        for layer in range(part.layers.start, part.layers.stop):
            seen[part.row, layer] = seen.get((part.row, layer), 0) + page.tokens
    assert seen == {(row, layer): 200 - 70 * (row == 0) for row in range(2) for layer in range(3)}
    prefixes = assemble(snapshot, pieces, [None] * len(pieces))  # exact replies that came without a body
    cache = copy.deepcopy(full)
    install(model)
    for i, layer in enumerate(full.layers):
        cache.layers[i] = CompressedLayer(prefixes[i], layer.keys[:, :, 200:], layer.values[:, :, 200:], model.config)
    more, wide = ids_of(2, 3), torch.cat([mask, torch.ones(2, 3, dtype=torch.long)], 1)
    where = torch.tensor([[130, 131, 132], [200, 201, 202]])
    with torch.no_grad():
        got = model(more, cache=cache, attention_mask=wide, position_ids=where).logits
        want = model(more, cache=full, attention_mask=wide, position_ids=where).logits
    assert torch.allclose(got, want, atol=1e-4)


def test_a_token_that_no_page_has_room_for_is_refused() -> None:
    model = build()
    ids = ids_of(1, 20)
    snapshot = _snapshot(model, prefill(model, ids), ids, None, None)
    with pytest.raises(SemproxyError, match=r"page\.too_large"):
        parts(snapshot, 8300, None)
