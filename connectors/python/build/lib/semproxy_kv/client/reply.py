"""Replies and faults, as errors with stable codes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import nats.errors

from ..errors import SemproxyError

UNREACHABLE = "unreachable"  # this package's own code: nobody took the request
TOO_LARGE = SemproxyError("page.too_large", "the page does not fit one NATS message; send fewer layers or fewer tokens per page")


def check(headers: Mapping[str, str] | None, body: bytes) -> None:
    """Raise the error of a reply that is not a success."""
    h = {k.lower(): v for k, v in (headers or {}).items()}
    status = h.get("semproxy-status")
    if status == "ok":
        return
    if status != "error":
        raise SemproxyError("internal", "the reply is not one of semproxy's: it has no Semproxy-Status header")
    after = h.get("semproxy-retry-after-ms", "")
    raise Answered(
        h.get("semproxy-code", "internal"),
        body.decode("utf-8", "replace"),
        retryable=h.get("semproxy-retryable") == "true",
        after=int(after) / 1000 if after.isdigit() else 0.0,
    )


class Answered(SemproxyError):
    """An error that a sidecar answered: it has let go of the page."""


def fault(e: Exception) -> SemproxyError:
    """What went wrong before a reply came."""
    if isinstance(e, SemproxyError):
        return e
    if isinstance(e, nats.errors.NoRespondersError):
        return SemproxyError(UNREACHABLE, "no semproxy listens on this NATS server", retryable=True)
    if isinstance(e, (asyncio.TimeoutError, TimeoutError)):
        return SemproxyError("deadline", "no reply came in time", retryable=True)
    if isinstance(e, nats.errors.MaxPayloadError):
        return SemproxyError(TOO_LARGE.code, TOO_LARGE.message)
    if isinstance(e, (nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError)):
        return SemproxyError(UNREACHABLE, "the connection was closed", retryable=False)
    if isinstance(e, nats.errors.BadSubjectError):
        return SemproxyError("subject.invalid", "the subject is not valid")
    return SemproxyError(UNREACHABLE, "the NATS server is not reachable", retryable=True)
