"""Trace context of a call."""

from __future__ import annotations


def current() -> dict[str, str]:
    """traceparent and tracestate of OpenTelemetry's current span; nothing where opentelemetry-api is not installed."""
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return {}
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers
