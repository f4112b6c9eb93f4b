"""What a client is told, and what it answers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True)
class Backoff:
    """The pause between attempts, seconds: first, then twice as long each time up to most, each varied by half of it at
    random. A longer pause that the server asks for wins."""

    first: float = 0.05
    most: float = 5.0

    def pause(self, attempt: int, asked: float) -> float:
        """How long to wait after the attempt of that number (1, 2, ...)."""
        base = max(min(self.first * 2.0 ** min(attempt - 1, 60), self.most), asked)
        return base + random.random() * base / 2


@dataclass(frozen=True)
class Options:
    """tenant is required. Times are seconds."""

    tenant: str
    timeout: float = 30.0  # how long one attempt waits for its reply
    max_attempts: int = 10
    backoff: Backoff = field(default_factory=Backoff)
    private_inbox: bool = False  # of an embedded server with users: replies come below _INBOX.<tenant>
    shared_memory: str = ""  # path of the sidecar's Unix socket; "" sends every page in its message
    region_bytes: int = 256 << 20  # of shared memory
    # Options of nats.connect, such as user_credentials, nkeys_seed, tls, user and password.
    connect: dict[str, Any] = field(default_factory=dict)
    # Gives the trace context of a call as headers. Default: that of OpenTelemetry's current span, where it is installed.
    trace: Callable[[], dict[str, str]] | None = None

    def __post_init__(self) -> None:
        if not TENANT.match(self.tenant):
            raise ValueError("tenant must be 1 to 64 letters, digits, underscores or hyphens")
        if self.timeout <= 0 or self.max_attempts < 1 or self.backoff.first < 0 or self.backoff.most < 0:
            raise ValueError("timeout and max_attempts must be positive, back-off not negative")


@dataclass(frozen=True)
class Result:
    """The reply to one request."""

    body: bytes
    headers: dict[str, str]
    attempts: int  # 1 where the first one succeeded
    duration: float  # seconds from the call to the reply, pauses included
    shared: bool  # the page went through shared memory

    def header(self, name: str) -> str:
        """A header in any case, or ""."""
        for key, value in self.headers.items():
            if key.lower() == name.lower():
                return value
        return ""

    @property
    def outcome(self) -> str:
        """compressed, exact or stored."""
        return self.header("Semproxy-Outcome")
