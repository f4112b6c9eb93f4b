"""Engine adapters of semproxy: KV caches made smaller by meaning, used with proportional attention.

semproxy_kv.client sends pages to a semproxy over NATS or shared memory; semproxy_kv.wire reads and writes pages and cores;
semproxy_kv.hf puts cores in place of the cache of a Hugging Face transformers model. Engines are imported only by the
module that needs them.
"""

from .client import AsyncClient, Backoff, Client, LocalSidecar, Options, Result
from .errors import SemproxyError, UnsupportedModel

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Backoff",
    "Client",
    "LocalSidecar",
    "Options",
    "Result",
    "SemproxyError",
    "UnsupportedModel",
    "__version__",
]
