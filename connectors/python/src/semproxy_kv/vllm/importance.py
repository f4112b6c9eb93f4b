"""Which tokens of a stored prompt are needed, learned by reading it a second time while the engine has nothing else to do.

The scheduler's side keeps what was stored (Readings). When no request is there it lets the engine repeat the text, part by part, in
requests of its own that nobody else sees: the prompt's KV is mostly in the prefix cache still. The workers watch attention meanwhile
(Attentive), and the pages are sent again with what they saw, so that cores keep what is needed. A request that arrives ends the reading;
it begins again later where it was.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.request import Request

from ..importance import PART, SINKS, Requests, largest, parts
from . import faults
from .check import changes_over
from .metadata import Repeat, Save
from .slots import LayerSlots

MOST = 64  # texts that wait; the oldest is forgotten
LEAST = 256  # tokens that are repeated at once, at least, but for the last of a text
PATIENCE = 120.0  # seconds for which the engine's loop goes on for the sake of pages that are not answered


@dataclass
class Reading:
    """A text whose pages are stored, and how much of it has been repeated."""

    request: Request  # the one that it came with
    salt: str | None  # of its prefix cache
    save: Save
    until: float  # when nobody waits for the answer to its pages any more
    done: list[tuple[int, int, int]] = field(default_factory=list)  # parts (from, to), and how many tokens their repetition has
    way: tuple[int, int] = (0, 0)  # the part that is being repeated

    @property
    def name(self) -> str:
        return self.save.request

    @property
    def left(self) -> int:
        """The token that is repeated next."""
        return self.done[-1][1] if self.done else self.save.pages[0][0]

    @property
    def end(self) -> int:
        return self.save.pages[-1][1]


class Readings:
    """Used by the scheduler's own thread."""

    def __init__(self, asks: Requests, longest: int, ranks: int) -> None:
        """longest is how many tokens a request may have."""
        self.request: Request | None = None  # that repeats a text
        self.now: Reading | None = None
        self._asks, self._longest, self._ranks = asks, longest, ranks
        self._sent: dict[int, tuple[Reading, list[int]]] = {}
        self._due: OrderedDict[tuple[Any, ...], Reading] = OrderedDict()
        self._count = 0

    @property
    def waiting(self) -> bool:
        """Whether there is something to do or to come, so that the engine's loop must go on."""
        now = time.monotonic()
        return bool(self._due) or any(now < reading.until for reading, _ in self._sent.values())

    def expect(self, number: int, request: Request, salt: str | None, save: Save) -> None:
        """Pages are sent, and the workers report by this number how many of them exist as cores."""
        self._sent[number] = Reading(request, salt, save, time.monotonic() + PATIENCE), []

    def kept(self, number: int, counts: list[int]) -> None:
        if (sent := self._sent.get(number)) is None:
            return
        sent[1].extend(counts)
        if len(sent[1]) < self._ranks:
            return
        reading = self._sent.pop(number)[0]
        if not all(sent[1]):
            return  # its tenant keeps tokens as they are
        s = reading.save
        self._due[s.tenant, s.headers, reading.salt, s.pages, s.ids] = reading
        while len(self._due) > MOST:
            self._due.popitem(last=False)

    def forget(self) -> None:
        """Nothing is to be read of what is stored so far."""
        self._sent.clear()
        self._due.clear()

    def next(self, room: int) -> Request | None:
        """What is to be computed now, in at most `room` slots, and nothing else; None: nothing."""
        while self._due:
            key, reading = self._due.popitem()
            if (request := self._repeat(reading, room)) is not None:
                self.now, self.request = reading, request
                self._due[key] = reading  # until it has been read
                return request
        return None

    def _repeat(self, reading: Reading, room: int) -> Request | None:
        ids, end = list(reading.save.ids), reading.end
        size = min(self._longest, room) - end - self._asks.most - 1
        if size < min(LEAST, end - reading.left):
            return None  # the engine has no room for it
        size = min(size, PART)
        first, last = parts(reading.left, end, size)[0]
        reading.way = first, last
        self._count += 1
        return Request(
            request_id=f"{reading.name}-read-{self._count}",
            prompt_token_ids=ids + self._asks.repetition(ids, first, last),
            sampling_params=SamplingParams(max_tokens=1, temperature=0, extra_args={"kv_transfer_params": {"compress": False}}),
            pooling_params=None,
            client_index=reading.request.client_index,
            cache_salt=reading.salt,
            block_hasher=reading.request._block_hasher,
        )

    def ended(self, request: Request, finished: bool) -> Reading | None:
        """The request is over. The reading, when that was all of it."""
        reading = self.now
        assert reading is not None
        self.now = self.request = None
        if not finished:
            return None
        reading.done.append((*reading.way, request.num_prompt_tokens - reading.end))
        if reading.left < reading.end:
            return None
        self._due = OrderedDict((k, r) for k, r in self._due.items() if r is not reading)
        return reading


def readings_of(config: Any, ranks: int) -> Readings | None:
    """Those of an engine, by its VllmConfig; None where it cannot read, which is logged."""
    from vllm.tokenizers import cached_tokenizer_from_config

    why = "" if changes_over(config) else "only --scheduler-cls semproxy_kv.vllm.Scheduler does"
    if config.parallel_config.data_parallel_size > 1:
        why = "the engines of a data-parallel group begin together, when a request comes"
    try:
        if not why and (tokenizer := cached_tokenizer_from_config(config.model_config)):
            return Readings(Requests.of(tokenizer), config.model_config.max_model_len, ranks)
        why = why or "the engine has no tokenizer"
    except Exception as e:
        why = f"the model's tokenizer cannot be loaded: {e}"
    faults.log.warning("importance: prompts are not read again: %s", why)
    return None


class Attentive:
    """What the workers saw while a text was repeated. Used by the worker's own thread."""

    def __init__(self, layers: list[LayerSlots], kv_heads: int, block: int) -> None:
        self._layers, self._kv_heads, self._block = layers, kv_heads, block
        self._repeats: list[Repeat] = []
        self._text = ""
        self._most = torch.empty(0)  # [layers, kv_heads, tokens of the text]
        self._seen: dict[tuple[int, int], list[int]] = {}  # by part, how many tokens of its repetition each layer has had
        for number, layer in enumerate(layers):
            impl = layer.attention.impl
            impl.forward = self._watch(number, impl.forward)

    def begin(self, repeats: list[Repeat]) -> None:
        """What passes in the step that begins."""
        self._repeats = repeats
        for r in repeats:
            if r.text != self._text:
                self._text, self._seen = r.text, {}
                self._most = torch.zeros(len(self._layers), self._kv_heads, r.tokens, device=self._layers[0].cache.device)

    def of(self, text: str, parts: Sequence[tuple[int, int, int]]) -> torch.Tensor | None:
        """What these parts, (from, to, tokens of the repetition), of a text got, [layers, kv_heads, tokens]; None: some was not seen."""
        if text != self._text or any(self._seen.get((first, last)) != [n] * len(self._layers) for first, last, n in parts):
            return None
        self._most[..., :SINKS] = 1
        most, self._most, self._text, self._seen = self._most.cpu(), torch.empty(0), "", {}
        return most

    def _watch(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def watched(layer: Any, query: torch.Tensor, *rest: Any, **more: Any) -> Any:
            out = forward(layer, query, *rest, **more)
            metadata = more.get("attn_metadata", rest[3] if len(rest) > 3 else None)
            slots = getattr(metadata, "slot_mapping", None)
            if slots is not None:  # or it is a step that only warms up
                for r in self._repeats:
                    self._see(r, number, layer, query, slots)
            return out

        return watched

    def _see(self, r: Repeat, number: int, layer: Any, query: torch.Tensor, slots: torch.Tensor) -> None:
        seen = self._seen.setdefault((r.first, r.last), [0] * len(self._layers))
        if r.begin > seen[number]:
            return  # the prefix cache had the rest: of() tells
        row = int((slots == r.slot).int().argmax())
        n, told = r.end - r.begin, r.last - r.first
        keys, _ = self._layers[number].layout.read(torch.tensor(r.blocks, device=self._most.device), self._block)
        keys = torch.cat([keys[r.first : r.last], keys[r.tokens : r.tokens + r.end]]).transpose(0, 1)
        asked = query.reshape(query.shape[0], layer.num_heads, -1)[row : row + n].transpose(0, 1)
        part = self._most[number, :, r.first : r.last]
        torch.maximum(part, largest(asked, keys, told, r.begin, layer.impl.scale), out=part)
        seen[number] = max(seen[number], r.end)
