"""What a second prefill says of tokens: the attention that they get while the text is repeated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from conftest import missing

try:
    import torch
    from transformers.cache_utils import StaticLayer

    from semproxy_kv.hf import compress, measure_importance
    from semproxy_kv.importance import ASK, BEGINS, GO_ON, SINKS
except ImportError:
    missing("torch", "torch and transformers are not installed")

from test_hf_exact import build, prefill


class Letters:
    """A tokenizer of single letters, with a chat template."""

    chat_template = "..."

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [1 + ord(c) % 96 for c in text]

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool, tokenize: bool) -> str:
        assert add_generation_prompt
        assert not tokenize
        return "user:" + messages[0]["content"] + "|assistant:"


TOKENIZER = Letters()


@torch.no_grad()
def written_out(model: Any, ids: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """By the weights of the model's own eager attention, [layers, batch, kv_heads, last - first]."""
    asked = torch.tensor([TOKENIZER.encode((GO_ON if first > SINKS else ASK) + "|assistant:", False)]).expand(len(ids), -1)
    whole = torch.cat([ids, asked, ids[:, first - BEGINS * (first > SINKS) : last]], 1)
    model.set_attn_implementation("eager")
    seen = model(whole, output_attentions=True).attentions
    n, out = ids.shape[1], []
    for weights in seen:
        rows = torch.cat([weights[:, :, n:, first:last], weights[:, :, n:, n:]], -1)
        rows = rows / rows.sum(-1, keepdim=True)  # shared out over the part and what repeats it
        most = rows[..., : last - first].amax(2)
        out.append(most.view(len(ids), model.config.num_key_value_heads, -1, last - first).amax(2))
    return torch.stack(out)


@pytest.mark.parametrize("chunk", [1000, 64])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_importance_is_the_attention_of_a_repetition(kind: str, chunk: int) -> None:
    model = build(kind)
    ids = torch.randint(1, 97, (2, 150), generator=torch.manual_seed(5))
    cache = prefill(model, ids)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers]
    got = measure_importance(model, cache, ids, TOKENIZER, chunk=chunk)
    assert got.shape == (3, 2, 2, 150)
    for layer, (keys, values) in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    assert (got[..., :SINKS] == 1).all()
    for first in range(SINKS, 150, chunk):
        want = written_out(model, ids, first, min(first + chunk, 150))
        assert torch.allclose(got[..., first : first + chunk], want, atol=2e-5)


def test_compress_takes_it_and_keeps_what_it_names(sidecar: Any, connect: Any) -> None:
    model = build()
    ids = torch.randint(1, 97, (1, 400), generator=torch.manual_seed(5))
    cache = prefill(model, ids)
    wanted = measure_importance(model, cache, ids, TOKENIZER)
    originals = [layer.keys[0].clone() for layer in cache.layers]
    report = compress(model, cache, ids, client=connect("quarter"), importance=wanted)
    assert report.error is None
    most = wanted[:, 0, :, 4:-16].flatten(1).argmax(1)
    for layer, at in enumerate(most.tolist()):  # the most needed token of a layer is a core of its own, as it was
        head, token = divmod(at, wanted.shape[-1] - 20)
        row = originals[layer][head, 4 + token]
        prefix = cache.layers[layer].prefix
        assert (prefix.keys.view(-1, row.shape[-1]) - row).abs().sum(-1).min() < 1e-5


def test_what_cannot_be_measured_is_said() -> None:
    model = build()
    ids = torch.randint(1, 97, (1, 50), generator=torch.manual_seed(5))
    cache = prefill(model, ids)
    with pytest.raises(ValueError, match="40 input ids, a cache of 50 tokens"):
        measure_importance(model, cache, ids[:, :40], TOKENIZER)
    with pytest.raises(ValueError, match="chunks of 7"):
        measure_importance(model, cache, ids, TOKENIZER, chunk=7)
    cache.layers[1] = StaticLayer(max_cache_len=50)
    cache.layers[1].update(*(torch.zeros(1, 2, 50, 16) for _ in range(2)), cache_kwargs={"cache_position": torch.arange(50)})
    with pytest.raises(ValueError, match="not in layers of StaticLayer"):
        measure_importance(model, cache, ids, TOKENIZER)


def test_a_tokenizer_without_a_chat_template_is_asked_in_a_line() -> None:
    model = build()
    ids = torch.randint(1, 97, (1, 50), generator=torch.manual_seed(5))
    cache = prefill(model, ids)
    plain = SimpleNamespace(encode=TOKENIZER.encode)
    assert measure_importance(model, cache, ids, plain).shape == (3, 1, 2, 50)
