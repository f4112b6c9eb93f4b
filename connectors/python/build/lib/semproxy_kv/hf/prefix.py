"""Cores of one layer, laid out for attention: heads of about the same length lie side by side."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

PADDING = 0.10  # of a group's slots, at most


@dataclass(frozen=True)
class Group:
    """Heads that attention reads together: cells (sequence x kv_heads + head) whose cores lie from `at` on, `width` slots each."""

    cells: torch.Tensor  # [n]
    at: int
    width: int
    bias: torch.Tensor | None  # [n, 1, 1, width]; None: nothing is added, nothing is padding


@dataclass
class Layout:
    """Where the cores of `sequences` sequences lie. Row b of the batch is sequence b // (batch / sequences)."""

    sequences: int
    groups: list[Group]


@dataclass
class Prefix:
    """Cores of one layer for every sequence of a batch.

    keys and values hold the cores of all sequences and heads one after the other, [entries, head_dim], so that heads that
    keep many cores cost the others nothing; rows tells which are whose, [batch, kv_heads, width], aligned to the right;
    bias is F32, what attention adds to their logits, -inf where a head has fewer than width; positions are F32.
    tokens is how many tokens they stand for. The first attention lays the entries out anew, in groups.
    """

    keys: torch.Tensor
    values: torch.Tensor
    rows: torch.Tensor
    bias: torch.Tensor
    positions: torch.Tensor
    tokens: int
    _layout: Layout | None = field(default=None, repr=False, compare=False)

    @property
    def width(self) -> int:
        return self.rows.shape[-1]

    def select(self, batch: torch.Tensor) -> Prefix:
        """The same for other rows of the batch. Sequences that were one share their cores."""
        i = batch.to(self.rows.device)
        out = Prefix(self.keys, self.values, self.rows[i], self.bias[i], self.positions[i], self.tokens)
        if self._layout:
            n = self._layout.sequences
            which = (batch // (self.rows.shape[0] // n)).cpu()
            if len(which) % n == 0 and torch.equal(which, torch.arange(n).repeat_interleave(len(which) // n)):
                out._layout = self._layout  # beams changed places within their sequence
        return out

    def join(self, later: Prefix) -> Prefix:
        """These cores, then later ones."""
        return Prefix(
            torch.cat([self.keys, later.keys]),
            torch.cat([self.values, later.values]),
            torch.cat([self.rows, later.rows + self.keys.shape[0]], -1),
            torch.cat([self.bias, later.bias], -1),
            torch.cat([self.positions, later.positions], -1),
            self.tokens + later.tokens,
        )

    def bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values, self.rows, self.bias, self.positions))

    def entries(self) -> int:
        """Cores, of all sequences and heads, without padding; beams count once."""
        rows = self.rows[torch.isfinite(self.bias)]
        return int(rows.unique().numel())

    def layout(self) -> Layout:
        """The groups; entries are moved so that each group is one block of keys and one of values."""
        if self._layout is None:
            self._layout = self._arrange()
        return self._layout

    def _arrange(self) -> Layout:
        real = torch.isfinite(self.bias)
        batch, heads, _ = self.rows.shape
        first = [int(self.rows[b][real[b]][0]) for b in range(batch)]  # no entry belongs to two sequences
        sequences = list(dict.fromkeys(first))
        times = batch // len(sequences)
        if first != [s for s in sequences for _ in range(times)]:
            sequences, times = first, 1  # rows of one sequence that are not side by side get cores of their own
        cells = [(b * times, h) for b in range(len(sequences)) for h in range(heads)]
        found = [(self.rows[cell][real[cell]].long(), self.bias[cell][real[cell]], self.positions[cell][real[cell]]) for cell in cells]
        shares = grouped([len(rows) for rows, _, _ in found])
        size = sum(len(share) * width for share, width in shares)
        keys, values = (t.new_zeros(size, t.shape[-1]) for t in (self.keys, self.values))
        width = max(width for _, width in shares)
        rows = self.rows.new_zeros(len(sequences), heads, width)
        bias = self.bias.new_full((len(sequences), heads, width), float("-inf"))
        positions = self.positions.new_zeros(len(sequences), heads, width)
        groups, at = [], 0
        for share, wide in shares:
            added = bias.new_full((len(share), 1, 1, wide), float("-inf"))
            for i, cell in enumerate(share):
                which, its, where = found[cell]
                n, begin = len(which), at + i * wide
                keys[begin : begin + n], values[begin : begin + n] = self.keys[which], self.values[which]
                added[i, 0, 0, :n] = its
                b, h = divmod(cell, heads)
                rows[b, h, width - n :] = torch.arange(begin, begin + n)
                bias[b, h, width - n :], positions[b, h, width - n :] = its, where
            indices = torch.tensor(share, device=keys.device)
            groups.append(Group(indices, at, wide, added if bool((added != 0).any()) else None))
            at += len(share) * wide
        self.keys, self.values = keys, values
        self.rows, self.bias, self.positions = (t.repeat_interleave(times, 0) for t in (rows, bias, positions))
        return Layout(len(sequences), groups)


def grouped(lengths: list[int]) -> list[tuple[list[int], int]]:
    """Cells in groups, each with the width of its longest: as few groups as padding of at most PADDING allows."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    out: list[tuple[list[int], int]] = []
    held = 0  # cores of the last group
    for i in order:
        n = lengths[i]
        if out and out[-1][1] * (len(out[-1][0]) + 1) * (1 - PADDING) <= held + n:
            out[-1][0].append(i)
            held += n
        else:
            out.append(([i], n))
            held = n
    return [(sorted(share), width) for share, width in out]
