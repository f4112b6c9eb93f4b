"""semproxy through its own path: a real sidecar, and the transformers adapter of connectors/python."""

from __future__ import annotations

import abc
import contextlib
import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from semproxy_kv.client import Client, LocalSidecar
from semproxy_kv.client.local import find_binary
from semproxy_kv.hf import CompressedLayer, compress, measure_importance

from .caches import Compressed, Layer
from .engine import Engine, Prefill

LARGEST_PAGE = "192MiB"  # a text's cache goes in one page where the client can send it so, and its budget is then spread over all layers

if CompressedLayer.__abstractmethods__:  # transformers before 5.24 calls get_max_length so, and takes no class without it
    CompressedLayer.get_max_cache_shape = CompressedLayer.get_max_length
    abc.update_abstractmethods(CompressedLayer)


def profile(snippet: str) -> dict[str, Any]:
    """The policy profile of "weighted,exact=0.5,protect.recent=32": a method, then keys of docs/reference/policy.md."""
    method, *rest = snippet.split(",")
    out: dict[str, Any] = {"method": method}
    for setting in rest:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{snippet}: {setting} is not KEY=VALUE")
        *above, key = path.split(".")
        inner = out
        for name in above:
            inner = inner.setdefault(name, {})
        try:
            inner[key] = json.loads(text)
        except ValueError:
            inner[key] = text
    return out


@functools.cache
def calibrate(folder: Path) -> list[list[float]]:
    """The head weights that `semproxy calibrate` measures on the texts in the program."""
    done = subprocess.run([find_binary(), "calibrate", "--model", str(folder)], check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line.strip().removeprefix("- ")) for line in done.stdout.splitlines() if line.startswith("  - ")]


def importance(engine: Engine, p: Prefill) -> torch.Tensor:
    """How much each token is needed, [layers, kv_heads, tokens], by the adapter's second prefill. One serves every ratio."""
    if "importance" not in p.memo:
        ids = torch.tensor(p.ids)[None]
        p.memo["importance"] = measure_importance(engine.model, p.cache(), ids, engine.tokenizer)[:, 0]
        engine.use()
    return p.memo["importance"]


class Product:
    """One sidecar for all policies, each a tenant of its own."""

    def __init__(self, engine: Engine, profiles: list[tuple[dict[str, Any], float]]) -> None:
        """profiles are pairs of a profile and its ratio."""
        self.engine = engine
        self._tenants: dict[str, str] = {}
        self._clients: dict[str, Client] = {}
        policy: dict[str, Any] = {"apiVersion": "semproxy.io/v1", "profiles": {}, "tenants": {}}
        for which, ratio in profiles:
            resolved = which | {"ratio": ratio}
            name = self._tenants.setdefault(_key(resolved), f"t{len(self._tenants)}")
            policy["profiles"][name] = resolved
            policy["tenants"][name] = {"rules": [{"profile": name}]}
        args = ("--compress-max-page-bytes", LARGEST_PAGE)
        self._sidecar = LocalSidecar(json.dumps(policy), tokenizer=str(Path(engine.folder) / "tokenizer.json"), args=args)

    def compress(self, p: Prefill, which: dict[str, Any], ratio: float, *, queries: str = "all", **options: Any) -> Compressed:
        """The cache of a prefill under a profile. queries: all that the adapter kept, the last of them, none. options are those of
        semproxy_kv.hf.compress."""
        sent = {"all": p.captured, "last": dict(p.captured), "none": None}[queries]
        tenant = self._tenants[_key(which | {"ratio": ratio})]
        if tenant not in self._clients:
            self._clients[tenant] = self._sidecar.client(tenant)
        cache = p.cache()
        report = compress(
            self.engine.model,
            cache,
            torch.tensor(p.ids)[None],
            client=self._clients[tenant],
            queries=sent,
            on_error="raise",
            **options,
        )
        out = Compressed([_layer(layer) for layer in cache.layers], p.tokens)
        out.fidelity = _mean(report.fidelity) | {"bytes_share": report.bytes_after / report.bytes_before}
        return out

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._sidecar.close()

    def __enter__(self) -> Product:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _key(resolved: dict[str, Any]) -> str:
    return json.dumps(resolved, sort_keys=True)


def _layer(layer: Any) -> Layer:
    if not isinstance(layer, CompressedLayer):  # the policy, or its guard, left it exact
        return Layer(layer.keys[0].float(), layer.values[0].float(), torch.zeros(layer.keys.shape[1:3]))
    p = layer.prefix
    rows = p.rows[0].long()
    return Layer(p.keys[rows].float(), p.values[rows].float(), p.bias[0].float())


def _mean(pages: list[dict[str, str]]) -> dict[str, float]:
    """The mean over pages of every number that the sidecar reported, whatever it is called."""
    found: dict[str, list[float]] = {}
    for page in pages:
        for name, text in page.items():
            with contextlib.suppress(ValueError):
                value = float(text)
                found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
