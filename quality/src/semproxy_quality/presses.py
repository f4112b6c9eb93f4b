"""The presses of kvpress, by their own code, on a prefill that is shared with every other method."""

from __future__ import annotations

import logging
import re
from typing import Any

import kvpress
import torch
from transformers import DynamicCache

from .caches import Compressed, Layer, masked
from .engine import Engine, Prefill

logging.getLogger("kvpress").setLevel(logging.ERROR)

SHORT = {"Streaming": "StreamingLLM", "AdaSnapKV": "AdaKV(SnapKV)", "AdaExpectedAttention": "AdaKV(ExpectedAttention)"}
# What a score is made of. A press that is not here is taken for one that looks at all queries of the prefill.
COST = {
    "none": ("KeyDiff", "StreamingLLM", "Knorm", "LagKV", "Leverage", "Random"),
    "last": ("SnapKV", "TOVA", "PyramidKV"),
    "second": ("KVzip", "FastKVzip"),
}


def parse(name: str) -> tuple[str, str]:
    """The press and the one inside it: "AdaKV(SnapKV)" is ("AdaKV", "SnapKV"), "SnapKV" is ("SnapKV", "")."""
    found = re.fullmatch(r"(\w+)(?:\((\w+)\))?", SHORT.get(name, name))
    if not found:
        raise ValueError(f"{name} is not the name of a press: write SnapKV or AdaKV(SnapKV)")
    outer, inner = (SHORT.get(n or "", n or "") for n in found.groups())
    for which in filter(None, (outer, inner)):
        if not hasattr(kvpress, which + "Press"):
            raise ValueError(f"kvpress {kvpress.__name__} has no {which}Press")
    return outer, inner


def cost(name: str) -> str:
    """The cost class of a press, that of the inner one where it wraps one."""
    outer, inner = parse(name)
    return next((kind for kind, names in COST.items() if (inner or outer) in names), "all")


def press(name: str, ratio: float) -> Any:
    """The press that keeps a ratio of the tokens."""
    outer, inner = parse(name)
    make = getattr(kvpress, outer + "Press")
    return make(getattr(kvpress, inner + "Press")(1 - ratio)) if inner else make(1 - ratio)


@torch.no_grad()
def compress(engine: Engine, p: Prefill, name: str, ratio: float) -> Compressed:
    """The cache of a prefill as the press leaves it."""
    if parse(name)[0] == "KVzip":
        return _kvzip(engine, p, ratio)
    torch.manual_seed(p.tokens)  # some draw a sketch at random
    which = press(name, ratio)
    which.post_init_from_model(engine.model)
    layers, keep = [], torch.ones(p.keys.shape[:3], dtype=torch.bool)
    for i, block in enumerate(engine.model.model.layers):
        module = block.self_attn
        module.masked_key_indices = None
        kwargs = {"position_embeddings": p.rotation}
        k, v = which.compress(module, p.hidden[i], p.keys[i][None], p.values[i][None], None, kwargs)
        keep[i] = _unmask(module, keep[i])
        layers.append(Layer(k[0].float(), v[0].float(), torch.zeros(k.shape[1:3])))
    if not keep.all():  # heads of their own sizes: the press masks what it would drop
        return masked(p.keys, p.values, keep)
    return Compressed(layers, p.tokens)


def _unmask(module: Any, keep: torch.Tensor) -> torch.Tensor:
    """What a press asked attention to hide in this layer, [kv_heads, tokens], and no longer does."""
    hidden, module.masked_key_indices = module.masked_key_indices, None
    if hidden is not None:
        _, heads, tokens = hidden
        keep[heads, tokens] = False
    return keep


@torch.no_grad()
def kvzip_press(engine: Engine, p: Prefill) -> Any:
    """KVzipPress after its pass over the context: score_val is [layers, 1, kv_heads, tokens]. One pass serves every ratio."""
    if "kvzip" not in p.memo:
        which = kvpress.KVzipPress(0.5)
        suffix = engine.chat("")[1] if p.prefix else "\n"
        which.prefix_length = p.prefix
        which._suffix_ids = torch.tensor(engine.encode(suffix))[None]
        which._context_ids, which._cache = torch.tensor(p.ids)[None], p.cache()
        engine.use("sdpa")
        try:
            which._perform_kvzip_compression(engine.model, engine.tokenizer)
        finally:
            engine.use()
        which._cache = DynamicCache()
        p.memo["kvzip"] = which
    return p.memo["kvzip"]


def _kvzip(engine: Engine, p: Prefill, ratio: float) -> Compressed:
    which = kvzip_press(engine, p)
    which.compression_ratio = 1 - ratio
    which.compress_post(engine.model)
    keep = torch.ones(p.keys.shape[:3], dtype=torch.bool)
    for i, block in enumerate(engine.model.model.layers):
        keep[i] = _unmask(block.self_attn, keep[i])
    return masked(p.keys, p.values, keep)
