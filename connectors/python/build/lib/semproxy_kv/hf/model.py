"""What must be known of a model, and which models are refused."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from ..config import MODEL_TYPES, rope_of_config
from ..errors import UnsupportedModel
from ..wire import Rope, fingerprint


def check_model(model: Any) -> None:
    """Raise UnsupportedModel for a model whose keys cannot be merged and used again, with the reason."""
    config = model.config
    kind = getattr(config, "model_type", type(model).__name__)
    if kind not in MODEL_TYPES:
        raise UnsupportedModel(f"models of type {kind} are not known here; known are {', '.join(MODEL_TYPES)}")
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    if set(layers) != {"full_attention"} or (kind == "mistral" and getattr(config, "sliding_window", None)):
        raise UnsupportedModel("sliding-window attention forgets by itself; set sliding_window to None where the model allows it")
    if model.training:
        raise UnsupportedModel("the model is in training mode; call model.eval()")
    rope_of(model)


def rope_of(model: Any) -> Rope:
    """How the model rotates its keys, read from its configuration and held against the frequencies that it really uses."""
    rope = rope_of_config(model.config)
    want = torch.tensor(rope.frequencies(), dtype=torch.float64)
    tables = [m.inv_freq for m in model.modules() if isinstance(getattr(m, "inv_freq", None), torch.Tensor)]
    if not tables:
        raise UnsupportedModel("the model has no table of rotary frequencies (inv_freq)")
    for table in tables:
        if table.shape != want.shape or not torch.allclose(table.double().cpu(), want, rtol=1e-4, atol=0):
            raise UnsupportedModel("the model's rotary frequencies are not those that its configuration describes")
    return rope


def layout_of(model: Any) -> str:
    """The fingerprint of the cache: axes are layer, head, token, dim, whatever the model is."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return fingerprint("hf", f"{transformers.__version__}.{config.model_type}", "LHTD", config.num_key_value_heads, head_dim)
