"""A model that is prefilled once and then followed on any number of compressed caches at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import semproxy_kv.hf.attention as adapter
import torch
import torch.nn.functional as F
from semproxy_kv.hf import capture_queries
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.masking_utils import sdpa_mask

from .caches import GONE, Compressed

NAME = "semproxy_quality"
Slots = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # keys, values and bias of one layer, [caches, kv_heads, slots, ...]
BATCH = 16  # caches that are followed at one time


@dataclass
class Prefill:
    """What one prefill of a text leaves, bit for bit as the model computed it.

    keys and values are [layers, kv_heads, tokens, head_dim] after RoPE; queries [layers, q_heads, tokens, head_dim]; hidden the
    input of each layer's attention, [1, tokens, width]; captured is what the adapter's own capture_queries() kept.
    """

    ids: list[int]
    keys: torch.Tensor
    values: torch.Tensor
    queries: torch.Tensor
    hidden: list[torch.Tensor]
    rotation: tuple[torch.Tensor, torch.Tensor]  # cos and sin of the positions
    captured: Any
    prefix: int = 0  # tokens of the chat template before the text
    memo: dict[str, Any] = field(default_factory=dict)  # of methods, what serves every ratio

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def cache(self) -> DynamicCache:
        """A new cache of the model with these keys and values."""
        cache = DynamicCache()
        for i, (k, v) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(k[None], v[None], i)
        return cache


class Engine:
    """A model folder, loaded. One at a time is in use in a process: transformers' attention functions are global."""

    def __init__(self, folder: Path, dtype: str = "auto") -> None:
        self.folder, self.name = folder, folder.name
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.dtype = pick_dtype() if dtype == "auto" else getattr(torch, dtype)
        self.model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=self.dtype, attn_implementation=NAME).eval()
        c = self.model.config
        self.layers, self.heads, self.q_heads = c.num_hidden_layers, c.num_key_value_heads, c.num_attention_heads
        self.dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        for layer in self.model.model.layers:  # presses look for it there
            layer.self_attn.rotary_emb = self.model.model.rotary_emb

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def chat(self, text: str) -> tuple[str, str]:
        """What the chat template puts before and after a user's message that ends in a text, up to the assistant's turn."""
        mark = "<<<TEXT>>>"
        message = [{"role": "user", "content": text + mark}]
        before, after = self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False).split(mark)
        return before, after

    def use(self, attention: str = NAME) -> None:
        if self.model.config._attn_implementation != attention:
            self.model.set_attn_implementation(attention)

    @torch.no_grad()
    def prefill(self, ids: Sequence[int], prefix: int = 0) -> Prefill:
        self.use()
        hidden: list[Any] = [None] * self.layers
        rotation: list[Any] = []

        def note(i: int) -> Any:
            def hook(_: Any, args: Any, kwargs: Any) -> None:
                hidden[i] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
                rotation[:] = [kwargs["position_embeddings"]]

            return hook

        hooks = [layer.self_attn.register_forward_pre_hook(note(i), with_kwargs=True) for i, layer in enumerate(self.model.model.layers)]
        queries: list[Any] = [None] * self.layers
        cache, state = DynamicCache(), _State(queries=queries)
        try:
            with _with(state), capture_queries() as captured:
                self.model.model(input_ids=torch.tensor(ids)[None], past_key_values=cache)
        finally:
            for h in hooks:
                h.remove()
        keys, values = (torch.stack([getattr(layer, kind)[0] for layer in cache.layers]) for kind in ("keys", "values"))
        return Prefill(list(ids), keys, values, torch.stack(queries), hidden, rotation[0], captured, prefix)

    @torch.no_grad()
    def follow(self, caches: Sequence[Compressed], ids: Sequence[int]) -> list[torch.Tensor]:
        """The last hidden states [tokens, width] of the same ids after each cache, which all stand for as many tokens."""
        out: list[torch.Tensor] = []
        for at in range(0, len(caches), BATCH):
            part = caches[at : at + BATCH]
            out += self._forward(_stack(part), torch.tensor(ids)[None].expand(len(part), -1), part[0].tokens)
        return out

    @torch.no_grad()
    def ask(self, cache: Compressed, questions: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The same of several questions after one cache. Shorter ones are padded at their end."""
        width = max(len(q) for q in questions)
        rows = torch.tensor([list(q) + [0] * (width - len(q)) for q in questions])
        return self._forward(_stack([cache]), rows, cache.tokens)

    def _forward(self, cache: list[Slots], ids: torch.Tensor, start: int) -> list[torch.Tensor]:
        self.use()
        n = ids.shape[1]
        state = _State(cache=cache, causal=torch.full((n, n), GONE).triu(1))
        positions = torch.arange(start, start + n)[None].expand(len(ids), -1)
        with _with(state):
            return list(self.model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state)

    @torch.no_grad()
    def losses(self, hidden: torch.Tensor, targets: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Negative log likelihood [targets] of each target after its state, and whether it is the most likely token."""
        logits, want = self.model.lm_head(hidden).float(), torch.tensor(targets)
        return -torch.log_softmax(logits, -1).gather(1, want[:, None])[:, 0], logits.argmax(-1) == want


def pick_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies matrices in it, else float32."""
    fast = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)() or getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if fast else torch.float32


@dataclass
class _State:
    """What the attention function does now: note queries (a prefill), or attend over a cache of cores."""

    queries: list[Any] | None = None
    cache: list[Slots] | None = None
    causal: torch.Tensor | None = None


_now: list[_State] = []


class _with:
    def __init__(self, state: _State) -> None:
        self.state = state

    def __enter__(self) -> None:
        _now.append(self.state)

    def __exit__(self, *_: object) -> None:
        _now.pop()


def _stack(caches: Sequence[Compressed]) -> list[Slots]:
    """Keys, values and bias of every layer, [caches, kv_heads, widest, ...]."""
    out = []
    for layers in zip(*(c.layers for c in caches), strict=True):
        widest = max(layer.bias.shape[1] for layer in layers)
        pad = [widest - layer.bias.shape[1] for layer in layers]
        out.append(
            (
                torch.stack([F.pad(layer.keys, (0, 0, 0, p)) for layer, p in zip(layers, pad, strict=True)]),
                torch.stack([F.pad(layer.values, (0, 0, 0, p)) for layer, p in zip(layers, pad, strict=True)]),
                torch.stack([F.pad(layer.bias, (0, p), value=GONE) for layer, p in zip(layers, pad, strict=True)]),
            )
        )
    return out


def _attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, dropout: float = 0.0, **kwargs: Any
) -> Any:
    state = _now[-1]
    if state.cache is None:
        assert state.queries is not None
        state.queries[module.layer_idx] = query[0].detach()
        return adapter.attention(module, query, key, value, mask, dropout, **kwargs)
    assert state.causal is not None
    keys, values, bias = state.cache[module.layer_idx]
    out = over_cores(query.float(), key.float(), value.float(), keys, values, bias, state.causal)
    return out.transpose(1, 2).to(query.dtype).contiguous(), None


def over_cores(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor,
    causal: torch.Tensor,
) -> torch.Tensor:
    """softmax over a cache's slots with their bias, then over the new tokens causally. query [batch, q_heads, n, dim], key and
    value [batch, kv_heads, n, dim]; the cache [batch or 1, kv_heads, slots, ...]. Returns [batch, q_heads, n, dim]."""
    batch, q_heads, n, dim = query.shape
    heads, slots = key.shape[1], keys.shape[2]
    rows = q_heads // heads * n
    q = query.reshape(batch, heads, rows, dim) * dim**-0.5
    shared = keys.shape[0] == 1 and batch > 1  # many questions over one cache: their rows attend together
    ahead = q.transpose(0, 1).reshape(1, heads, batch * rows, dim) if shared else q
    before = torch.matmul(ahead, keys.transpose(2, 3)) + bias[:, :, None]
    if shared:
        before = before.view(heads, batch, rows, slots).transpose(0, 1)
    after = torch.matmul(q, key.transpose(2, 3)).view(batch, heads, -1, n, n) + causal
    p = torch.softmax(torch.cat([before, after.reshape(batch, heads, rows, n)], -1), -1)
    held, new = p[..., :slots], p[..., slots:]
    if shared:
        out = torch.matmul(held.transpose(0, 1).reshape(1, heads, batch * rows, slots), values)
        out = out.view(heads, batch, rows, dim).transpose(0, 1)
    else:
        out = torch.matmul(held, values)
    return (out + torch.matmul(new, value)).reshape(batch, q_heads, n, dim)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
