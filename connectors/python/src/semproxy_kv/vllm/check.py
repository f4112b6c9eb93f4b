"""Which engines are refused, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..config import MODEL_TYPES, head_dim_of, rope_of_config
from ..errors import UnsupportedModel
from ..wire import Rope

VERSIONS = ("0.33.",)  # of vLLM, whose signatures and layouts this package was written and tested for
DTYPES = {"auto": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Shape:
    """What all pages of this engine have in common. kv_heads are those of one tensor-parallel rank."""

    model: str
    rope: Rope
    layers: int
    kv_heads: int
    head_dim: int
    block: int  # slots of an engine's block
    dtype: torch.dtype
    ranks: int


def check_engine(config: Any, kv_cache: Any, version: str, model: str = "") -> Shape:
    """The shape of an engine's KV. Raises UnsupportedModel for an engine whose KV cannot be replaced by cores.

    config is vLLM's VllmConfig, kv_cache its KVCacheConfig, version that of vLLM.
    """

    def refuse(when: bool, why: str) -> None:
        if when:
            raise UnsupportedModel(why)

    refuse(not version.startswith(VERSIONS), f"vLLM {version} is not known here; known are {', '.join(v + 'x' for v in VERSIONS)}")
    transfer, parallel = config.kv_transfer_config, config.parallel_config
    refuse(
        transfer.kv_load_failure_policy != "recompute",
        'set "kv_load_failure_policy": "recompute" in --kv-transfer-config: a request whose cores cannot be loaded is then computed',
    )
    refuse(parallel.pipeline_parallel_size > 1, "pipeline parallelism is not supported: a rank sees some layers only")
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        refuse((getattr(parallel, name, 1) or 1) > 1, f"{name.replace('_size', '').replace('_', ' ')} is not supported")
    refuse(config.speculative_config is not None, "speculative decoding is not supported: it takes back tokens")
    m = config.model_config
    hf = m.hf_text_config
    refuse(m.use_mla, "MLA keeps no keys per head, so that there is nothing to merge")
    refuse(m.uses_mrope, "M-RoPE gives a token several positions")
    kind = getattr(hf, "model_type", "")
    refuse(kind not in MODEL_TYPES, f"models of type {kind} are not known here; known are {', '.join(MODEL_TYPES)}")
    refuse(getattr(m, "is_multimodal_model", False), "multimodal models are not supported")
    window = getattr(hf, "sliding_window", None) if kind == "mistral" or getattr(hf, "use_sliding_window", False) else None
    mixed = set(getattr(hf, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    refuse(bool(window) or mixed, "sliding-window attention forgets by itself; start vLLM with --disable-sliding-window")
    groups = kv_cache.kv_cache_groups
    refuse(len(groups) != 1, f"the KV cache has {len(groups)} groups of layers; one block table for all layers is needed")
    spec = groups[0].kv_cache_spec
    plain = type(spec).__name__ == "FullAttentionSpec" and not getattr(spec, "sliding_window", None)
    refuse(not plain, f"KV of kind {type(spec).__name__} is not supported; plain full attention is")
    cache = str(config.cache_config.cache_dtype)
    refuse(cache not in DTYPES, f"quantised KV is not supported: --kv-cache-dtype {cache}; leave it at auto")
    dtype = DTYPES[cache] or m.dtype
    refuse(spec.dtype != dtype or spec.head_size != head_dim_of(hf), "the engine's KV is not what the model's configuration describes")
    return Shape(
        model=model or _served(m),
        rope=rope_of_config(hf),
        layers=len(groups[0].layer_names),
        kv_heads=spec.num_kv_heads,
        head_dim=spec.head_size,
        block=spec.block_size,
        dtype=dtype,
        ranks=parallel.tensor_parallel_size,
    )


def _served(m: Any) -> str:
    name = m.served_model_name or m.model
    return str(name[0] if isinstance(name, list) else name)
