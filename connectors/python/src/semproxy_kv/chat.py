"""A model's chat template, as far as a prompt that is made of token ids needs it."""

from __future__ import annotations

from typing import Any


def around(tokenizer: Any) -> tuple[str, str]:
    """What stands before and behind a user's message, up to its answer; without a template nothing and a line's end."""
    if not getattr(tokenizer, "chat_template", None):
        return "", "\n"
    mark = "<<<TEXT>>>"
    text = tokenizer.apply_chat_template([{"role": "user", "content": mark}], add_generation_prompt=True, tokenize=False)
    before, after = text.split(mark)
    return before, after
