"""Clients of the page plane (docs/reference/page-plane.md): send a page, keep it until the reply, get its cores."""

from .aio import AsyncClient
from .local import LocalSidecar
from .options import Backoff, Options, Result
from .sync import Client

__all__ = ["AsyncClient", "Backoff", "Client", "LocalSidecar", "Options", "Result"]
