"""The entry point of vllm.general_plugins: makes the attention backend known in every process of vLLM."""

from __future__ import annotations

BACKEND = "semproxy_kv.vllm.attention.SemproxyBackend"


def register() -> None:
    """--attention-backend CUSTOM is semproxy's from here on. May be called again."""
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    register_backend(AttentionBackendEnum.CUSTOM, BACKEND)
