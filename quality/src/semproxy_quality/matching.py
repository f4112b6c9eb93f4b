"""Attention Matching (arXiv 2602.16284), as we read it: its keys by highest attention.

Of each head the keys with the largest root mean square attention over reference queries stay. A bias for each is fitted so that
the attention mass over what stays is that over all tokens, by non-negative least squares within e^-3 .. e^3, and values so that
the attention output is, by least squares. The paper takes the reference queries from the model's own answers about the text; here
they are those of the prefill ("am") or those of a pass that repeats the text ("am-repeat"), and every head keeps as many.
"""

from __future__ import annotations

import math

import torch

from .caches import Compressed, Layer
from .engine import Engine, Prefill

QUERIES = 768  # reference queries of a KV head, at most
STEPS = 60  # of the fit of the bias
LARGEST = 3.0  # of a bias and of its negative
RIDGE = 1e-3  # of the mean diagonal: so that the system can be solved
SINKS = 4  # they stay


@torch.no_grad()
def compress(engine: Engine, p: Prefill, ratio: float, repeat: bool) -> Compressed:
    keep = max(int(ratio * p.tokens), SINKS)
    layers = []
    for i in range(engine.layers):
        queries = _queries(engine, p, i, repeat)  # [kv_heads, queries, head_dim]
        layers.append(_layer(queries, p.keys[i].float(), p.values[i].float(), keep))
    return Compressed(layers, p.tokens)


def _queries(engine: Engine, p: Prefill, layer: int, repeat: bool) -> torch.Tensor:
    source = repeated(engine, p)[layer] if repeat else p.queries[layer][:, SINKS:].float()
    per_head = source.reshape(engine.heads, -1, engine.dim)
    pick = torch.linspace(0, per_head.shape[1] - 1, min(QUERIES, per_head.shape[1])).round().long()
    return per_head[:, pick]


def repeated(engine: Engine, p: Prefill) -> torch.Tensor:
    """Queries of the text once more, after the text: float32 [layers, q_heads, tokens, head_dim]."""
    if "repeated" not in p.memo:
        ask = engine.encode("\n\nRepeat the previous context exactly.") + engine.encode(engine.chat("")[1] if p.prefix else "\n")
        after = engine.prefill(p.ids + ask + p.ids[p.prefix :])
        p.memo["repeated"] = after.queries[:, :, p.tokens + len(ask) :].float()
    again: torch.Tensor = p.memo["repeated"]
    return again


def _layer(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, keep: int) -> Layer:
    """queries [heads, n, dim]; keys and values [heads, tokens, dim]."""
    logits = queries @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1])
    attention = torch.softmax(logits, -1)
    score = attention.square().mean(1).sqrt()
    score[:, :SINKS] = torch.inf
    index = score.topk(keep, -1).indices.sort(-1).values
    columns = index[:, None].expand(-1, queries.shape[1], -1)
    mass = attention.gather(2, columns)  # exp(logit) / sum over all tokens: what a bias of 0 leaves of 1
    weight = _fit_weights(mass)
    x = torch.softmax(logits.gather(2, columns) + weight.log()[:, None], -1)
    y = attention @ values
    wide = index[..., None].expand(-1, -1, keys.shape[-1])
    start = values.gather(1, wide)
    return Layer(keys.gather(1, wide), start + _ridge(x, y - x @ start), weight.log())


def _fit_weights(mass: torch.Tensor) -> torch.Tensor:
    """w >= 0, within bounds, so that mass [heads, n, keep] times w is 1 for every query, by multiplicative steps."""
    low, high = math.exp(-LARGEST), math.exp(LARGEST)
    gram, want = mass.transpose(1, 2) @ mass, mass.sum(1)
    w = torch.ones_like(want)
    for _ in range(STEPS):
        w = (w * want / (gram @ w[..., None])[..., 0].clamp_min(1e-12)).clamp(low, high)
    return w


def _ridge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The least d with x d = y nearly: x [heads, n, keep], y [heads, n, dim]."""
    gram = x.transpose(1, 2) @ x
    load = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(-1)
    gram = gram + load[:, None, None] * torch.eye(gram.shape[-1])
    return torch.linalg.solve(gram, x.transpose(1, 2) @ y)
