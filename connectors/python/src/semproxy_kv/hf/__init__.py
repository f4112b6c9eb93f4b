"""Hugging Face transformers: cores in place of a model's cache, and attention that reads them.

    report = compress(model, cache, input_ids, client=client)     # the cache is swapped in place
    model.generate(input_ids_and_more, cache=cache)

Needs torch and transformers (pip install semproxy-kv[transformers]); the versions that were tested are in the README.
"""

from ..tensors import rotate
from .attention import NAME, install
from .capture import capture_queries
from .compress import Pending, Report, begin, compress, faults
from .importance import measure_importance
from .layer import CompressedLayer, cache_bytes
from .model import check_model, rope_of
from .positions import rebase

__all__ = [
    "NAME",
    "CompressedLayer",
    "Pending",
    "Report",
    "begin",
    "cache_bytes",
    "capture_queries",
    "check_model",
    "compress",
    "faults",
    "install",
    "measure_importance",
    "rebase",
    "rope_of",
    "rotate",
]
