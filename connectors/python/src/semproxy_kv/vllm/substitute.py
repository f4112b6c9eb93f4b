"""Placeholders in a request: S slots in place of its first P tokens, inside the engine, so that neither the client nor the
usage that it is told sees them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """Cores for the first `tokens` tokens of a prompt, in `slots` slots: no more, so that text follows in the same block."""

    tokens: int
    slots: int  # less than tokens
    objects: tuple[tuple[str, ...], ...]  # of each rank
    digest: str
    lengths: tuple[tuple[int, ...], ...] = ()  # of each rank: slots of every layer and head, where they differ

    @property
    def shift(self) -> int:
        """Added to the position of a token for that of its slot; negative."""
        return self.slots - self.tokens


@dataclass(frozen=True)
class Original:
    """What a request was before."""

    prompt: list[int]
    salt: str | None


def digest_of(tenant: str, objects: tuple[tuple[str, ...], ...], salt: str | None) -> str:
    """The salt of the prefix cache: blocks are shared by requests of a tenant with the same cores, and by nobody else."""
    h = hashlib.sha256()
    for text in (tenant, salt or "", *(name for rank in objects for name in (*rank, ""))):
        h.update(f"{len(text.encode())}:{text}".encode())
    return "semproxy:" + h.hexdigest()


def substitute(request: Any, plan: Plan, placeholder: int) -> Original:
    """Put placeholders in place of the first tokens of vLLM's Request, which has not been scheduled yet."""
    before = Original(list(request.prompt_token_ids), request.cache_salt)
    replace(request, before.prompt, plan, placeholder)
    return before


def replace(request: Any, prompt: list[int], plan: Plan, placeholder: int) -> None:
    """This prompt, with placeholders in place of its first tokens, in place of the request's."""
    _set(request, [placeholder] * plan.slots + prompt[plan.tokens :], plan.digest)


def restore(request: Any, before: Original) -> None:
    """Undo it. The worker must not have seen the request yet."""
    _set(request, list(before.prompt), before.salt)


def _set(request: Any, prompt: list[int], salt: str | None) -> None:
    output = list(request.output_token_ids)
    request.prompt_token_ids = prompt
    request.num_prompt_tokens = len(prompt)
    request._all_token_ids[:] = prompt + output  # the view all_token_ids is of this list
    request.cache_salt = salt
    request.block_hashes.clear()
    request.update_block_hashes()


def unfit(request: Any) -> str:
    """Why the KV of a request can be neither replaced nor kept, or ""."""
    if request.sampling_params is None or request.pooling_params is not None:
        return "it is no generation"
    if request.mm_features or request.prompt_embeds is not None or request.prompt_token_ids is None:
        return "its prompt is not text alone"
    if request.lora_request is not None:
        return "it uses an adapter"
    if request.resumable:
        return "its input is a stream"
    return ""


def refusal(request: Any) -> str:
    """Why the prompt of a request that is fit is computed in full, or ""."""
    p = request.sampling_params
    if p.prompt_logprobs is not None:
        return "it asks for the log probabilities of its prompt"
    if p.repetition_penalty != 1.0:
        return "its repetition penalty counts the tokens of the prompt"
    if request.skip_reading_prefix_cache:
        return "it asks for no cached prefix"
    return ""


def bound(request: Any) -> str:
    """Why a request cannot be given to the workers anew, with its answer so far as a part of its prompt, or ""."""
    p = request.sampling_params
    if p.presence_penalty or p.frequency_penalty:
        return "its penalties count the tokens of its answer"
    if p.seed is not None:
        return "its random numbers go by its seed"
    if p.bad_words or p.repetition_detection is not None or getattr(p, "thinking_token_budget", None) is not None:
        return "its sampling looks back on its answer"
    if request.use_structured_output:
        return "its answer follows a grammar"
    return ""
