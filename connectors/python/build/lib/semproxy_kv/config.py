"""What a model's configuration, as transformers reads it, says of its keys. No engine is imported."""

from __future__ import annotations

from typing import Any

from .errors import UnsupportedModel
from .wire import Rope

# Decoders that rotate the halves of a key against each other and attend with a plain softmax of q.k.
MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def head_dim_of(config: Any) -> int:
    """Dimensions of a head's keys."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_of_config(config: Any) -> Rope:
    """How the model rotates its keys. Raises UnsupportedModel where that cannot be undone from positions alone."""
    said = dict(getattr(config, "rope_parameters", None) or {})
    kind = said.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise UnsupportedModel(f"rope type {kind} cannot be undone from positions alone")
    if "mrope_section" in said:
        raise UnsupportedModel("M-RoPE gives a token several positions")
    if kind == "yarn" and said.get("truncate") is False:
        raise UnsupportedModel("YaRN without truncation is not known to semproxy")
    head_dim = head_dim_of(config)
    partial = said.get("partial_rotary_factor") or 1.0
    return Rope(
        type=kind,
        theta=float(said["rope_theta"]),
        rotary_dim=int(head_dim * partial),
        factor=float(said.get("factor") or 0) if kind != "default" else 0.0,
        low_freq_factor=float(said.get("low_freq_factor") or 0) if kind == "llama3" else 0.0,
        high_freq_factor=float(said.get("high_freq_factor") or 0) if kind == "llama3" else 0.0,
        original_max_position=int(said.get("original_max_position_embeddings") or 0) if kind in ("llama3", "yarn") else 0,
        beta_fast=float(said.get("beta_fast") or 0) if kind == "yarn" else 0.0,
        beta_slow=float(said.get("beta_slow") or 0) if kind == "yarn" else 0.0,
    )
