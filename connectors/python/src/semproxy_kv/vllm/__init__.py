"""vLLM: cores in place of a prompt's KV blocks, and attention that gives each its weight.

    vllm serve MODEL --attention-backend CUSTOM --kv-transfer-config '{"kv_connector": "SemproxyConnector",
      "kv_connector_module_path": "semproxy_kv.vllm", "kv_role": "kv_both", "kv_load_failure_policy": "recompute",
      "kv_connector_extra_config": {"url": "nats://127.0.0.1:4222", "tenant": "acme"}}'

When a request has finished, its KV goes to semproxy in pages. A later prompt that begins with the same tokens gets their
cores: S slots for P tokens. README has what is refused, and which version of vLLM this is for.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SemproxyConnector"]


def __getattr__(name: str) -> Any:
    # vLLM loads the plugin of this package very early, when its own modules cannot be imported yet.
    if name == "SemproxyConnector":
        from .connector import SemproxyConnector

        return SemproxyConnector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
