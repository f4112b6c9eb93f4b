"""Benchmarks, as Markdown tables: python -m semproxy_kv.bench hf --model DIR --text FILE

hf: decoding with transformers over a full cache and over cores, in turns in one run, so that what else the machine does slows
all alike. The full cache is measured as transformers has it, and at its best: buffers without copies, and the kernel that
does not repeat the keys of a group. What is divided by is the best of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import sdpa_mask

from .client import LocalSidecar
from .client.local import local_policy
from .hf import CompressedLayer, capture_queries, compress, install
from .hf.layer import _grown
from .hf.prefix import Prefix

GQA, GROUPED = "semproxy_bench_gqa", "semproxy_bench_grouped"


class Buffered(DynamicLayer):
    """A full layer that copies nothing in a step."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.tokens = keys.shape[-2]
        self.room = [_grown(t, self.tokens) for t in (keys, values)]
        self.keys, self.values = (t[..., : self.tokens, :] for t in self.room)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        first, self.tokens = self.tokens, self.tokens + key_states.shape[-2]
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[..., first : self.tokens, :] = new
        self.keys, self.values = (t[..., : self.tokens, :] for t in self.room)
        return self.keys, self.values


def _gqa(module: Any, q: Any, k: Any, v: Any, mask: Any, dropout: float = 0.0, scaling: float | None = None, **_: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=True).transpose(1, 2), None


def _grouped(module: Any, q: Any, k: Any, v: Any, mask: Any, dropout: float = 0.0, scaling: float | None = None, **_: Any) -> Any:
    """One query of each head: those of a group are the rows of one head, so that keys are read once."""
    batch, heads, n, dim = q.shape
    out = F.scaled_dot_product_attention(q.reshape(batch, k.shape[1], -1, dim), k, v, scale=scaling)
    return out.view(batch, heads, n, dim).transpose(1, 2), None


for _name, _function in ((GQA, _gqa), (GROUPED, _grouped)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, sdpa_mask)


def _repeat(prefix: Prefix, batch: int) -> Prefix:
    """Cores of so many sequences, each in memory of its own."""
    n = prefix.keys.shape[0]
    rows = torch.cat([prefix.rows + i * n for i in range(batch)])
    keys, values = (t.repeat(batch, 1) for t in (prefix.keys, prefix.values))
    bias, positions = (t.repeat(batch, 1, 1) for t in (prefix.bias, prefix.positions))
    return replace(prefix, keys=keys, values=values, rows=rows, bias=bias, positions=positions, _layout=None)


def _caches(model: Any, full: DynamicCache, small: DynamicCache, batch: int) -> dict[str, tuple[str, Callable[[], Any]]]:
    """What is measured: a name, the attention that it is for, and a cache of `batch` sequences, none of which share memory."""

    def plain() -> Any:
        cache = DynamicCache(config=model.config)
        for i, layer in enumerate(full.layers):
            cache.update(layer.keys.repeat(batch, 1, 1, 1), layer.values.repeat(batch, 1, 1, 1), i)
        return cache

    def buffered() -> Any:
        cache = DynamicCache(config=model.config)
        cache.layers = [Buffered(layer.keys.repeat(batch, 1, 1, 1), layer.values.repeat(batch, 1, 1, 1)) for layer in full.layers]
        return cache

    def cores() -> Any:
        cache = DynamicCache(config=model.config)
        cache.layers = [
            CompressedLayer(
                _repeat(layer.prefix, batch), layer.keys.repeat(batch, 1, 1, 1), layer.values.repeat(batch, 1, 1, 1), model.config
            )
            for layer in small.layers
        ]
        return cache

    return {
        "transformers": ("sdpa", plain),
        "enable_gqa": (GQA, buffered),
        "grouped": (GROUPED, buffered),
        "cores": ("semproxy", cores),
    }


@torch.inference_mode()
def hf(a: argparse.Namespace) -> None:
    """The table of decoding with transformers."""
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=getattr(torch, a.dtype)).eval().to(a.device)
    ids = AutoTokenizer.from_pretrained(a.model)(a.text.read_text(), return_tensors="pt").input_ids
    if ids.shape[1] < max(a.tokens):
        sys.exit(f"the text has {ids.shape[1]} tokens; {max(a.tokens)} are asked for")
    install(model)
    print(
        f"Decode of {a.model.name}, {a.dtype}, {a.device}, {torch.get_num_threads()} threads, ratio {a.ratio}, budget {a.budget}: "
        f"ms per step, best of {a.rounds} rounds of {a.steps} steps in turns.\n"
    )
    print("| tokens | batch | transformers | best full cache | cores | best / cores | of KV slots | padding | bytes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with LocalSidecar(local_policy(a.ratio, budget=a.budget)) as sidecar, sidecar.client() as client:
        for tokens in a.tokens:
            prompt = ids[:, :tokens].to(a.device)
            full = DynamicCache(config=model.config)
            with capture_queries() as queries:
                for at in range(0, tokens, 1024):
                    model(prompt[:, at : at + 1024], cache=full, logits_to_keep=1)
            small = DynamicCache(config=model.config)
            small.layers = [_layer(layer) for layer in full.layers]
            report = compress(model, small, prompt, client=client, queries=queries, on_error="raise")
            if report.outcome != "compressed":
                sys.exit(f"nothing was compressed: {report}")
            for batch in a.batch:
                print(_row(model, a, tokens, batch, _caches(model, full, small, batch)), flush=True)


def _layer(layer: Any) -> DynamicLayer:
    out = DynamicLayer()
    out.update(layer.keys, layer.values)
    return out


def _row(model: Any, a: argparse.Namespace, tokens: int, batch: int, made: dict[str, tuple[str, Callable[[], Any]]]) -> str:
    caches = {name: (attention, make()) for name, (attention, make) in made.items()}
    best = dict.fromkeys(caches, float("inf"))
    last = torch.full((batch, 1), 1, device=a.device)
    for turn in range(a.rounds + 1):
        for name, (attention, cache) in caches.items():
            model.set_attn_implementation(attention)
            for _ in range(a.steps):
                where = torch.full((batch, 1), cache.get_seq_length(), device=a.device)
                _wait(a.device)
                began = time.perf_counter()
                model(last, cache=cache, position_ids=where)
                _wait(a.device)
                if turn:  # the first one warms up
                    best[name] = min(best[name], time.perf_counter() - began)
    small, whole = caches["cores"][1], caches["enable_gqa"][1]
    prefixes = [layer.prefix for layer in small.layers]
    slots, real = sum(p.keys.shape[0] for p in prefixes), sum(p.entries() for p in prefixes)
    bytes_ = [sum(t.numel() * t.element_size() for p in prefixes for t in (p.keys, p.values))]
    bytes_.append(sum(t[..., :tokens, :].numel() * t.element_size() for layer in whole.layers for t in layer.room))
    whole_slots = len(prefixes) * model.config.num_key_value_heads * tokens * batch
    strongest = min(best["enable_gqa"], best["grouped"], best["transformers"])
    ms = {name: f"{1e3 * t:.1f}" for name, t in best.items()}
    return (
        f"| {tokens} | {batch} | {ms['transformers']} | {1e3 * strongest:.1f} | {ms['cores']} | {strongest / best['cores']:.2f}x "
        f"| {slots / whole_slots:.1%} | {slots / real - 1:.1%} | {bytes_[0] / bytes_[1]:.1%} |"
    )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    p = argparse.ArgumentParser(
        prog="python -m semproxy_kv.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=["hf"])
    p.add_argument("--model", type=Path, required=True, help="folder of the model")
    p.add_argument("--text", type=Path, required=True, help="a text of at least so many tokens as are measured")
    p.add_argument("--tokens", type=int, nargs="+", default=[2048, 4096, 8192])
    p.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8])
    p.add_argument("--ratio", type=float, default=0.25)
    p.add_argument("--budget", choices=["adaptive", "equal"], default="adaptive")
    p.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--steps", type=int, default=4)
    p.add_argument("--rounds", type=int, default=3)
    hf(p.parse_args())


if __name__ == "__main__":
    main()
