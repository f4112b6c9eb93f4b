"""What pages and cores say of themselves in their metadata."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import refuse

MAX_INT = 2**31 - 1


@dataclass(kw_only=True)
class Identity:
    """Which part of which sequence of which model a blob is."""

    model: str
    sequence: str
    layout: str
    layer_first: int = 0
    token_first: int = 0
    tokens_total: int = 0
    page: int = 0
    pages: int = 1
    extra: dict[str, str] = field(default_factory=dict)

    def put(self) -> dict[str, str]:
        """The metadata of these fields."""
        for name in ("model", "sequence", "layout"):
            value = getattr(self, name)
            if not 1 <= len(value.encode()) <= 256 or any(ord(c) < 32 or ord(c) == 127 for c in value):
                raise refuse("page.bad_metadata", f'metadata "{name}"', repr(value), "1 to 256 bytes without control characters")
        numbers = ("layer_first", "token_first", "tokens_total", "page", "pages")
        return {
            **self.extra,
            "model": self.model,
            "sequence": self.sequence,
            "layout": self.layout,
            **{name: str(_whole(name, getattr(self, name))) for name in numbers},
        }


class Metadata:
    """Takes values out of a blob's metadata; what is left over is extra."""

    def __init__(self, values: dict[str, str]) -> None:
        self.rest = dict(values)
        self.rest.pop("checksum", None)

    def text(self, key: str) -> str:
        if key not in self.rest:
            raise refuse("page.bad_metadata", f'metadata "{key}"', "nothing", "a value")
        return self.rest.pop(key)

    def whole(self, key: str) -> int:
        value = self.text(key)
        if not (value.isascii() and value.isdigit()) or (len(value) > 1 and value[0] == "0"):
            raise refuse("page.bad_metadata", f'metadata "{key}"', repr(value), "a whole number from 0")
        return _whole(key, int(value))

    def format(self, want: str) -> None:
        if (got := self.text("format")) != want:
            raise refuse("page.bad_format", 'metadata "format"', repr(got), want)

    def identity(self) -> dict[str, str | int]:
        """The arguments of an Identity, but for extra."""
        out: dict[str, str | int] = {name: self.text(name) for name in ("model", "sequence", "layout")}
        for name in ("layer_first", "token_first", "tokens_total", "page", "pages"):
            out[name] = self.whole(name)
        return out


def _whole(name: str, value: int) -> int:
    if not 0 <= value <= MAX_INT:
        raise refuse("page.bad_metadata", f'metadata "{name}"', value, "a whole number from 0 to 2^31-1")
    return value


def go_float(value: float) -> str:
    """The shortest text of a number, as Go's strconv writes it with format 'g'."""
    mantissa, _, exponent = f"{value!r}".partition("e")
    negative = mantissa.startswith("-")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))  # digits before the point
    digits = digits.rstrip("0")
    if not digits:
        text = "0"
    elif -4 <= point - 1 < 6:
        if point <= 0:
            text = "0." + "0" * -point + digits
        elif point >= len(digits):
            text = digits + "0" * (point - len(digits))
        else:
            text = digits[:point] + "." + digits[point:]
    else:
        text = digits[0] + ("." + digits[1:] if len(digits) > 1 else "") + f"e{point - 1:+03d}"
    return ("-" if negative else "") + text
