"""What kv_connector_extra_config may say."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ..client import Backoff, Options

BLOCK = 16  # tokens of a block of the prefix index (docs/reference/page-plane.md)


@dataclass(frozen=True)
class Settings:
    """Times are seconds."""

    url: str = "nats://127.0.0.1:4222"  # of NATS
    tenant: str = "default"  # of requests whose kv_transfer_params name none, unless tenants are listed
    tenants: tuple[str, ...] = ()  # whom kv_transfer_params may name; () is anybody: then only the proxy may reach the engine
    model: str = ""  # what policies match; default: the name that the model is served by
    save: bool = True  # send the KV of finished requests
    load: bool = True  # use stored cores
    min_tokens: int = 256  # shorter prefixes are not asked for, and shorter pages not sent but one that ends with a first message
    page_first: int = 256  # tokens of a sequence's first page; each page is as long as all before it, or ends with a message
    page_tokens: int = 1024  # and no longer than this
    live: bool = True  # a request that runs may change over to its own cores (--scheduler-cls semproxy_kv.vllm.Scheduler)
    live_tokens: int = 1024  # shorter prompts do not
    live_after: int = 16  # tokens of an answer after which the prompt's KV is sent
    live_every: int = 0  # tokens of an answer after which a request that has changed over does so again, with them; 0: never
    live_remaining: int = 64  # an answer that may not have so many more tokens does not change over
    importance: bool = False  # read stored prompts again while there is no request, and keep what is needed (--scheduler-cls, as for live)
    adaptive: bool = False  # on a GPU too, as many cores as each layer and head needs (units.py): piecewise CUDA graphs, blocks by head
    prefer_full: float = 0.5  # below this use of the KV space a prompt whose full KV the engine still has does without cores
    timeout: float = 10.0  # of one attempt to send a page
    lookup_timeout: float = 2.0  # how long a new request waits for its cores to be found; then it is computed in full
    pause: float = 5.0  # for which nothing is asked or sent after nobody answered
    cache_bytes: int = 1 << 30  # of cores kept in host memory
    save_bytes: int = 1 << 30  # of KV on its way in host memory; what comes on top is not saved
    placeholder: int = 0  # the token id that stands at the slots of cores
    shared_memory: str = ""  # the sidecar's Unix socket
    private_inbox: bool = False
    connect: dict[str, Any] = field(default_factory=dict)  # options of nats.connect, such as user_credentials

    @property
    def page_sizes(self) -> tuple[int, int]:
        return self.page_first, self.page_tokens

    @staticmethod
    def of(extra: dict[str, Any]) -> Settings:
        """Read them. Raises ValueError that names what is wrong."""
        known = {f.name: f for f in fields(Settings)}
        for name in extra:
            if name not in known:
                raise ValueError(f"kv_connector_extra_config: {name!r} is not known; known are {', '.join(known)}")
        given = {**extra, **({"tenants": tuple(extra["tenants"])} if "tenants" in extra else {})}
        for name, value in given.items():
            want: type | tuple[type, ...] = type(getattr(Settings(), name))
            want = (int, float) if want is float else want
            if not isinstance(value, want) or (isinstance(value, bool) and want is not bool):
                raise ValueError(f"kv_connector_extra_config: {name} is {value!r}, want {known[name].type}")
        s = Settings(**given)
        for name in ("min_tokens", "page_first", "page_tokens"):
            if getattr(s, name) < BLOCK or getattr(s, name) % BLOCK:
                raise ValueError(f"kv_connector_extra_config: {name} must be a positive multiple of {BLOCK}")
        if not 0 <= s.prefer_full <= 1:
            raise ValueError("kv_connector_extra_config: prefer_full must be from 0 to 1")
        for name in ("live_tokens", "live_after", "live_remaining"):
            if getattr(s, name) < 1:
                raise ValueError(f"kv_connector_extra_config: {name} must be positive")
        if s.live_every and s.live_every < s.min_tokens:
            raise ValueError("kv_connector_extra_config: live_every must be 0, or min_tokens at least: shorter pages are not sent")
        for name in ("timeout", "lookup_timeout", "pause", "cache_bytes", "save_bytes"):
            if getattr(s, name) <= 0:
                raise ValueError(f"kv_connector_extra_config: {name} must be positive")
        if s.placeholder < 0:
            raise ValueError("kv_connector_extra_config: placeholder must be a token id")
        for tenant in (s.tenant, *s.tenants):
            Options(tenant=tenant)  # raises ValueError
        return s

    def options(self, tenant: str) -> Options:
        """Of the client of a tenant. An engine does not wait for long: what fails is computed."""
        return Options(
            tenant=tenant,
            timeout=self.timeout,
            max_attempts=3,
            backoff=Backoff(0.05, 1.0),
            private_inbox=self.private_inbox,
            shared_memory=self.shared_memory,
            connect=dict(self.connect),
            trace=dict,  # a page's trace is its request's, not that of the thread which sends it
        )
