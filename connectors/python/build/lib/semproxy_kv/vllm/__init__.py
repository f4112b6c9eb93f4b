"""vLLM: cores in place of a prompt's KV blocks, which the engine's own attention reads as it reads any keys and values.

    vllm serve MODEL --scheduler-cls semproxy_kv.vllm.Scheduler --kv-transfer-config '{"kv_connector": "SemproxyConnector",
      "kv_connector_module_path": "semproxy_kv.vllm", "kv_role": "kv_both", "kv_load_failure_policy": "recompute",
      "kv_connector_extra_config": {"url": "nats://127.0.0.1:4222", "tenant": "acme"}}'

A long prompt's KV goes to semproxy while it is answered, and the running request changes over to the cores: S slots for P tokens.
What a request leaves behind is stored, and a later prompt that begins with the same tokens gets its cores. README has what is
refused, and which versions of vLLM this is for.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Scheduler", "SemproxyConnector"]


def __getattr__(name: str) -> Any:
    # vLLM loads the plugin of this package very early, when its own modules cannot be imported yet.
    if name == "SemproxyConnector":
        from .connector import SemproxyConnector

        return SemproxyConnector
    if name == "Scheduler":
        from .live import Scheduler

        return Scheduler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
