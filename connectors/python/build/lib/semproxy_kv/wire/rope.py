"""How an engine rotated its keys: the metadata value "rope", and the frequencies that semproxy un-rotates with."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from ..errors import SemproxyError, refuse
from .identity import go_float

TYPES = ("default", "linear", "dynamic", "yarn", "llama3", "ntk", "none")
# Types whose rotation can be undone from positions alone: compress/rope.go computes the same.
UNDOABLE = ("default", "linear", "ntk", "yarn", "llama3", "none")
SCALING = ("factor", "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow")


@dataclass(frozen=True)
class Rope:
    """A rotation. A scaling field that is 0 is absent. interleaved: pairs are (0,1), (2,3) ...; else (0, dim/2) ..."""

    type: str = "default"
    theta: float = 10000.0
    rotary_dim: int = 0
    interleaved: bool = False
    original_max_position: int = 0
    factor: float = 0.0
    low_freq_factor: float = 0.0
    high_freq_factor: float = 0.0
    attention_factor: float = 0.0
    beta_fast: float = 0.0
    beta_slow: float = 0.0

    def json(self) -> str:
        """The metadata value, byte for byte as the Go side writes it."""
        if self.type not in TYPES:
            raise refuse("page.bad_rope", 'metadata "rope": the type is unknown', self.type, ", ".join(TYPES))
        parts = [
            f'"type":{json.dumps(self.type)}',
            f'"theta":{go_float(self.theta)}',
            f'"rotary_dim":{self.rotary_dim}',
            f'"interleaved":{"true" if self.interleaved else "false"}',
        ]
        if self.original_max_position:
            parts.append(f'"original_max_position":{self.original_max_position}')
        parts += [f'"{name}":{go_float(getattr(self, name))}' for name in SCALING if getattr(self, name)]
        return "{" + ",".join(parts) + "}"

    @staticmethod
    def parse(text: str) -> Rope:
        """Read the metadata value. Unknown fields are refused."""
        try:
            fields = json.loads(text)
            rope = Rope(**({"rotary_dim": 0, "theta": 0.0} | fields))
        except (TypeError, ValueError) as e:
            raise SemproxyError("page.bad_rope", f'metadata "rope": {e}') from None
        if rope.type not in TYPES:
            raise refuse("page.bad_rope", 'metadata "rope": the type is unknown', rope.type, ", ".join(TYPES))
        return rope

    def frequencies(self) -> list[float]:
        """Radians per position of each pair of rotary dimensions, [rotary_dim / 2]."""
        if self.type == "none":
            return []
        if self.type not in UNDOABLE:
            raise SemproxyError("page.bad_rope", f"rope type {self.type} cannot be undone from positions alone")
        half, theta, divisor = self.rotary_dim // 2, self.theta, 1.0
        if self.type == "linear":
            divisor = self.factor
        elif self.type == "ntk":
            theta *= self.factor ** (self.rotary_dim / (self.rotary_dim - 2))
        base = [theta ** (-i / half) / divisor for i in range(half)]
        if self.type == "llama3":
            return [self._llama3(w) for w in base]
        if self.type == "yarn":
            return self._yarn(base)
        return base

    def _llama3(self, w: float) -> float:
        turns = self.original_max_position * w / (2 * math.pi)
        blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        blend = min(max(blend, 0.0), 1.0)
        return (1 - blend) * w / self.factor + blend * w

    def _yarn(self, base: list[float]) -> list[float]:
        def at(turns: float) -> float:
            length = math.log(self.original_max_position / (turns * 2 * math.pi))
            return self.rotary_dim * length / (2 * math.log(self.theta))

        low = max(math.floor(at(self.beta_fast or 32.0)), 0)
        high: float = min(math.ceil(at(self.beta_slow or 1.0)), self.rotary_dim - 1)
        if low == high:
            high += 0.001
        share = [min(max((i - low) / (high - low), 0.0), 1.0) for i in range(len(base))]
        return [w / self.factor * s + w * (1 - s) for w, s in zip(base, share, strict=True)]
