"""Which engines are refused, with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from ..config import MODEL_TYPES, head_dim_of, rope_of_config
from ..errors import UnsupportedModel
from ..wire import Rope

VERSIONS = ("0.32.", "0.33.")  # of vLLM, whose connector, scheduler and caches this package was tested with
DTYPES = {"auto": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
QUANTISED = {"fp8": torch.float8_e4m3fn, "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}  # of vLLM's kernel for CPUs


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
    folded: bool = True  # cores carry their bias in their keys; False: the engine's attention adds it
    units: bool = False  # each layer and head may have cores in a number of its own (units.py)
    kept: torch.dtype | None = None  # what the engine rounds keys and values to in its cache, a byte each; None: dtype


def check_engine(config: Any, kv_cache: Any, version: str, model: str = "", adaptive: bool = False) -> Shape:
    """The shape of an engine's KV. Raises UnsupportedModel for an engine whose KV cannot be replaced by cores.

    config is vLLM's VllmConfig, kv_cache its KVCacheConfig, version that of vLLM. adaptive asks for units where they are not known to work.
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
    if why := _drafts(config):
        raise UnsupportedModel(why)
    m = config.model_config
    hf = m.hf_text_config
    refuse(m.use_mla, "MLA keeps no keys per head, so that there is nothing to merge")
    refuse(m.uses_mrope, "M-RoPE gives a token several positions")
    kind = getattr(hf, "model_type", "")
    if why := _hybrid(hf, kind):
        raise UnsupportedModel(why)
    refuse(kind not in MODEL_TYPES, f"models of type {kind} are not known here; known are {', '.join(MODEL_TYPES)}")
    refuse(getattr(m, "is_multimodal_model", False), "multimodal models are not supported")
    window = getattr(hf, "sliding_window", None) if kind == "mistral" or getattr(hf, "use_sliding_window", False) else None
    windows = set(getattr(hf, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    refuse(bool(window) or windows, "sliding-window attention forgets by itself; start vLLM with --disable-sliding-window")
    groups = kv_cache.kv_cache_groups
    refuse(len(groups) != 1, f"the KV cache has {len(groups)} groups of layers; one block table for all layers is needed")
    spec = groups[0].kv_cache_spec
    plain = type(spec).__name__ == "FullAttentionSpec" and not getattr(spec, "sliding_window", None)
    refuse(not plain, f"KV of kind {type(spec).__name__} is not supported; plain full attention is")
    cache = str(config.cache_config.cache_dtype)
    kernel = not _custom(config) and _kernel()
    if adaptive and (why := _whole(config)):
        raise UnsupportedModel(why)
    kept = QUANTISED.get(cache) if kernel else None
    refuse(cache not in DTYPES and kept is None, f"quantised KV is not supported: --kv-cache-dtype {cache}; {_instead()}")
    dtype = DTYPES.get(cache) or m.dtype
    stored = torch.uint8 if kept else dtype
    refuse(spec.dtype != stored or spec.head_size != head_dim_of(hf), "the engine's KV is not what the model's configuration describes")
    return Shape(
        model=model or _served(m),
        rope=rope_of_config(hf),
        layers=len(groups[0].layer_names),
        kv_heads=spec.num_kv_heads,
        head_dim=spec.head_size,
        block=spec.block_size,
        dtype=dtype,
        ranks=parallel.tensor_parallel_size,
        folded=not _custom(config),
        units=kernel or adaptive,
        kept=kept,
    )


def _hybrid(hf: Any, kind: str) -> str:
    """Why a model whose layers attend in several ways is refused, or ""."""
    layers = Counter(getattr(hf, "layer_types", None) or ())
    others = {name: n for name, n in layers.items() if name != "full_attention"}
    if len(layers) < 2:
        return ""
    what = ", ".join(f"{n} of {name}" for name, n in sorted(others.items()))
    window = getattr(hf, "sliding_window", None)
    return (
        f"{kind} is a hybrid: beside {layers['full_attention']} layers of full_attention it has {what}"
        + (f", which see {window} tokens" if window and "sliding_attention" in others else "")
        + ". Cores take fewer slots than tokens in every layer at once, and these layers need their last tokens, or a state, as they were"
        " at the end of the prefix: semproxy's pages do not carry that"
    )


def _drafts(config: Any) -> str:
    """Why the engine's speculative decoding does not go with cores, or "". Drafts that are rejected leave keys behind the cores, which
    the next step overwrites; what must not happen is that tokens which are still to be verified are taken for computed ones."""
    spec = config.speculative_config
    if spec is None:
        return ""
    if spec.method != "ngram":
        return (
            f"speculative decoding by {spec.method} is not supported, by ngram is: whatever else proposes tokens has KV or states"
            " of the whole prompt, which cores do not replace"
        )
    if config.scheduler_config.async_scheduling:
        return "speculative decoding is not supported with asynchronous scheduling, which counts drafts as computed: --no-async-scheduling"
    if not changes_over(config):
        return (
            "speculative decoding needs --scheduler-cls semproxy_kv.vllm.Scheduler: vLLM's own fills a step of one token up with"
            " drafts of -1, which its sampler for CPUs takes for tokens"
        )
    if _custom(config):
        return "speculative decoding was not tested with --attention-backend CUSTOM"
    return ""


def _whole(config: Any) -> str:
    """Why no step of the engine can be read in units, or ""."""
    if _custom(config):
        return '"adaptive" is for the engine\'s own attention: --attention-backend CUSTOM takes cores in any number as it is'
    if (mode := config.compilation_config.cudagraph_mode) is not None and mode.has_full_cudagraphs():
        return (
            f"a full CUDA graph ({mode}) replays attention with the block table of all heads, so that cores in other numbers by head"
            ' are not read: --compilation-config \'{"cudagraph_mode": "PIECEWISE"}\''
        )
    return ""


def check_layer(name: str, layer: Any, folded: bool) -> None:
    """Refuse an attention layer whose cache cannot be written from outside, or that adds no bias where one is needed."""
    impl = layer.impl
    kind = type(impl).__name__
    if not hasattr(impl, "do_kv_cache_update") or getattr(getattr(layer, "attn_backend", None), "forward_includes_kv_cache_update", False):
        raise UnsupportedModel(
            f"layer {name} attends with {kind}, which writes its KV cache while it attends; choose another --attention-backend"
        )
    if not folded and not hasattr(impl, "attach"):
        raise UnsupportedModel(
            f"--attention-backend CUSTOM was given, and this platform gave layer {name} {kind} in its place; leave the option out:"
            " every backend reads cores whose keys carry their bias"
        )


def _kernel() -> bool:
    """Whether the engine attends with vLLM's kernel for CPUs, whose caches are known to be rows of units (units.py)."""
    from vllm import _custom_ops  # noqa: F401  loads the kernels
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu()) and hasattr(torch.ops._C, "cpu_attn_reshape_and_cache")


def changes_over(config: Any) -> bool:
    """Whether --scheduler-cls is the scheduler of this package."""
    return "semproxy_kv.vllm" in str(config.scheduler_config.scheduler_cls)


def _instead() -> str:
    return f"vLLM's kernel for CPUs may have {', '.join(QUANTISED)}, others were not tested: leave it at auto"


def _custom(config: Any) -> bool:
    """Whether --attention-backend CUSTOM was given: semproxy's own, which adds a bias."""
    backend = config.attention_config.backend
    return backend is not None and getattr(backend, "name", str(backend)) == "CUSTOM"


def _served(m: Any) -> str:
    name = m.served_model_name or m.model
    return str(name[0] if isinstance(name, list) else name)
