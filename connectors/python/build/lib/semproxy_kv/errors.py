"""The one exception of this package: what went wrong, under a stable code."""

from __future__ import annotations


class SemproxyError(Exception):
    """An answer that is not a success.

    code is stable (docs/reference/page-plane.md, docs/reference/wire-format.md); message is a sentence without secrets. A retryable error
    is raised only when the attempts are used up; attempts says how often the page was sent.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = False, attempts: int = 0, after: float = 0.0) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.retryable = retryable
        self.attempts = attempts
        self.after = after  # seconds that the server asks to wait

    def __str__(self) -> str:
        tail = f" (after {self.attempts} attempts)" if self.attempts > 1 else ""
        return f"{self.code}: {self.message}{tail}"


class UnsupportedModel(SemproxyError):
    """The model, its cache or its positions are of a kind whose keys cannot be merged and used again. Code
    engine.unsupported. Nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__("engine.unsupported", message)


def refuse(code: str, what: str, got: object, want: object) -> SemproxyError:
    """The error of a blob that is not as docs/reference/wire-format.md demands."""
    return SemproxyError(code, f"{what}: got {got}, want {want}")
