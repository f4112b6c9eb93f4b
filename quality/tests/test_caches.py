"""Caches of cores, and attention over them."""

import torch

from semproxy_quality.caches import Compressed, Layer, masked, whole
from semproxy_quality.engine import _stack, over_cores


def some(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_mask_keeps_each_heads_own_tokens() -> None:
    keys, values = some(1, 2, 5, 4), some(1, 2, 5, 4) + 1
    keep = torch.tensor([[[1, 0, 1, 0, 1], [0, 0, 0, 1, 0]]]).bool()
    c = masked(keys, values, keep)
    layer = c.layers[0]
    assert torch.equal(layer.keys[0], keys[0, 0, [0, 2, 4]])
    assert torch.equal(layer.values[1, 0], values[0, 1, 3])
    assert torch.isfinite(layer.bias).tolist() == [[True, True, True], [True, False, False]]
    assert c.kept() == 4 / 10


def test_attention_over_the_whole_cache_is_attention() -> None:
    heads, group, before, n, dim = 2, 3, 7, 4, 8
    keys, values = some(1, heads, before, dim), some(1, heads, before, dim) * 2
    q, k, v = some(1, heads * group, n, dim), some(1, heads, n, dim) + 0.5, some(1, heads, n, dim)
    causal = torch.full((n, n), float("-inf")).triu(1)
    held = _stack([whole(keys, values)])[0]
    got = over_cores(q, k, v, *held, causal)
    mask = torch.cat([torch.zeros(n, before), causal], 1)
    all_k, all_v = torch.cat([keys, k], 2).repeat_interleave(group, 1), torch.cat([values, v], 2).repeat_interleave(group, 1)
    want = torch.nn.functional.scaled_dot_product_attention(q, all_k, all_v, attn_mask=mask)
    assert torch.allclose(got, want, atol=1e-5)


def test_questions_that_share_a_cache_do_not_see_each_other() -> None:
    layer = Layer(some(2, 6, 8), some(2, 6, 8), torch.randn(2, 6, generator=torch.Generator().manual_seed(1)))
    q, k, v = some(3, 4, 5, 8), some(3, 2, 5, 8), some(3, 2, 5, 8)
    causal = torch.full((5, 5), float("-inf")).triu(1)
    held = _stack([Compressed([layer], 9)])[0]
    together = over_cores(q, k, v, *held, causal)
    alone = torch.cat([over_cores(q[i : i + 1], k[i : i + 1], v[i : i + 1], *held, causal) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_caches_of_different_width_are_followed_together() -> None:
    small, large = (Compressed([Layer(some(2, n, 8), some(2, n, 8), torch.zeros(2, n))], 9) for n in (3, 6))
    q, k, v = some(1, 4, 5, 8), some(1, 2, 5, 8), some(1, 2, 5, 8)
    causal = torch.full((5, 5), float("-inf")).triu(1)
    twice = [t.expand(2, -1, -1, -1) for t in (q, k, v)]
    both = over_cores(twice[0], twice[1], twice[2], *_stack([small, large])[0], causal)
    for i, c in enumerate((small, large)):
        assert torch.allclose(both[i : i + 1], over_cores(q, k, v, *_stack([c])[0], causal), atol=1e-5)


def test_a_count_of_two_is_two_tokens() -> None:
    """A slot with bias ln 2 weighs what two equal tokens do."""
    k, v = some(1, 1, 3, 8), some(1, 1, 3, 8)
    twice = Compressed([Layer(torch.cat([k[0], k[0, :, :1]], 1), torch.cat([v[0], v[0, :, :1]], 1), torch.zeros(1, 4))], 4)
    merged = Compressed([Layer(k[0], v[0], torch.tensor([[2.0, 1.0, 1.0]]).log())], 4)
    q, new = some(1, 2, 2, 8), some(1, 1, 2, 8)
    causal = torch.full((2, 2), float("-inf")).triu(1)
    a, b = (over_cores(q, new, new, *_stack([c])[0], causal) for c in (twice, merged))
    assert torch.allclose(a, b, atol=1e-6)
