"""How much each token of a text is needed: the largest attention that it gets while the model repeats the text (KVzip, arXiv 2505.23416).

A text of more tokens than a part has is repeated part by part, and attention is shared out over the part and its repetition. The first
tokens, which every query looks at whatever they say, are needed, and not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .chat import around

ASK = "\n\nRepeat the previous context exactly."
GO_ON = "\n\nRepeat the part of the previous context exactly, starting with"
SINKS = 4  # first tokens, as above
PART = 2048  # tokens that are repeated at once
BEGINS = 8  # tokens of the part before, which tell where to go on
_QUERIES = 256  # whose attention is in memory at one time


@dataclass(frozen=True)
class Requests:
    """What asks a model to repeat its context, and a later part of it: token ids, in the model's chat template."""

    first: list[int]
    later: list[int]

    @staticmethod
    def of(tokenizer: Any) -> Requests:
        def ids(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        answer = ids(around(tokenizer)[1])
        return Requests(ids(ASK) + answer, ids(GO_ON) + answer)

    def repetition(self, text: list[int], first: int, last: int) -> list[int]:
        """What follows a text of these ids when its tokens from first to last are repeated."""
        if first <= SINKS:
            return self.first + text[first:last]
        return self.later + text[max(first - BEGINS, 0) : last]

    @property
    def most(self) -> int:
        """Tokens of a repetition beyond those of its part, at most."""
        return max(len(self.first), len(self.later) + BEGINS)


def parts(first: int, last: int, size: int = PART) -> list[tuple[int, int]]:
    """What is repeated at once of the tokens from first to last."""
    first = max(first, SINKS)
    return [(at, min(at + size, last)) for at in range(first, last, size)]


def largest(query: torch.Tensor, keys: torch.Tensor, told: int, seen: int, scale: float) -> torch.Tensor:
    """The largest attention that each of the first `told` keys gets: float32 [..., kv_heads, told].

    query, [..., q_heads, n, dim], are those of tokens one after another; the first of them sees the keys, [..., kv_heads, keys, dim], up
    to number told + seen, which is its own.
    """
    heads, (q_heads, n) = keys.shape[-3], query.shape[-3:-1]
    grouped = query.unflatten(-3, (heads, q_heads // heads))
    turned = keys.float().unsqueeze(-3).transpose(-1, -2)
    out = torch.zeros(*keys.shape[:-2], told, device=keys.device)
    for at in range(0, n, _QUERIES):
        some = grouped[..., at : at + _QUERIES, :].float() * scale
        own = told + seen + at + torch.arange(some.shape[-2], device=keys.device)
        upto = told + seen + at + some.shape[-2]
        logits = some @ turned[..., :upto]
        logits.masked_fill_(torch.arange(upto, device=keys.device) > own[:, None], float("-inf"))
        out = torch.maximum(out, logits.softmax(-1)[..., :told].amax((-3, -2)))
    return out
