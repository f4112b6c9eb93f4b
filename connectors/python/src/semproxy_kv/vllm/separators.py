"""Which tokens stand between the messages of a chat: pages end behind them (prefix.py)."""

from __future__ import annotations

from typing import Any

from . import faults


def separators_of(model_config: Any) -> frozenset[int]:
    """Those of an engine's model, by vLLM's ModelConfig; none where its tokenizer is not used or cannot be loaded."""
    from vllm.tokenizers import cached_tokenizer_from_config

    try:
        tokenizer = cached_tokenizer_from_config(model_config)
        return separators(tokenizer) if tokenizer else frozenset()
    except Exception as e:
        faults.log.warning("pages do not end where messages do, because the model's tokenizer cannot be loaded: %s", e)
        return frozenset()


def separators(tokenizer: Any) -> frozenset[int]:
    """Tokens that no text has: the special ones but that of unknown text, and what else was added and is in the chat template."""
    template = str(getattr(tokenizer, "chat_template", ""))
    added = getattr(tokenizer, "added_tokens_decoder", {})
    named = {i for i, token in added.items() if token.special or (token.content.strip() and token.content in template)}
    return frozenset(named.union(tokenizer.all_special_ids) - {getattr(tokenizer, "unk_token_id", None)})
