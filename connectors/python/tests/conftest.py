"""What the tests need: the semproxy binary, torch, a sidecar, a trained model. SEMPROXY_TEST_REQUIRE turns what is missing
from a skip into a failure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from semproxy_kv import Client, LocalSidecar, Options

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "transport/page/testdata"
DEMO = ROOT / "configs/demo"
MODEL = ROOT / "configs/eval"
TOKENIZER = DEMO / "tokenizer.json"


def missing(need: str, why: str) -> Any:
    """Skip, unless SEMPROXY_TEST_REQUIRE names the need."""
    if need in os.environ.get("SEMPROXY_TEST_REQUIRE", "").split(","):
        pytest.fail(f"SEMPROXY_TEST_REQUIRE names {need}, but {why}")
    pytest.skip(why, allow_module_level=True)


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The semproxy of this tree: SEMPROXY_BIN, else built now."""
    if named := os.environ.get("SEMPROXY_BIN"):
        return named
    if not shutil.which("go"):
        missing("go", "there is no Go to build semproxy with")
    path = tmp_path_factory.mktemp("bin") / "semproxy"
    subprocess.run(["go", "build", "-o", str(path), "./cmd/semproxy"], cwd=ROOT, check=True)
    os.environ["SEMPROXY_BIN"] = str(path)
    return str(path)


POLICY = """apiVersion: semproxy.io/v1
profiles:
  quarter: { method: weighted, ratio: 0.25 }
  half8: { method: weighted, ratio: 0.5, fp8: true }
  window: { method: window, ratio: 0.25 }
  regular: { method: weighted, ratio: 0.25, budget: equal }
  assigned: { method: weighted, ratio: 0.25, assign: true }
tenants:
  quarter: { rules: [ { profile: quarter } ] }
  half8: { rules: [ { profile: half8 } ] }
  window: { rules: [ { profile: window } ] }
  regular: { rules: [ { profile: regular } ] }
  assigned: { rules: [ { profile: assigned } ] }
  exact: { rules: [ { profile: exact } ] }
  slow: { limits: { pagesPerSecond: 2 }, rules: [ { profile: quarter } ] }
"""


@pytest.fixture(scope="session")
def sidecar(binary: str) -> Iterator[LocalSidecar]:
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as s:
        yield s


@pytest.fixture
def connect(sidecar: LocalSidecar) -> Iterator[Any]:
    """Clients of the sidecar; closed when the test ends."""
    opened: list[Client] = []

    def make(tenant: str, **options: Any) -> Client:
        opened.append(Client(sidecar.url, Options(tenant=tenant, **options)))
        return opened[-1]

    yield make
    for client in opened:
        client.close()


@pytest.fixture(scope="session")
def torch() -> Any:
    try:
        import torch
        import transformers
    except ImportError:
        missing("torch", "torch and transformers are not installed")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch


@pytest.fixture(scope="session")
def tinylm(torch: Any) -> Any:
    """A small model that was really trained, as transformers loads it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def recall_cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (MODEL / "recall.jsonl").read_text().splitlines()]
