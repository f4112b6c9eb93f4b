"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from semproxy_kv import LocalSidecar

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *args: str) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLES / name), *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_client_page(sidecar: LocalSidecar) -> None:
    assert "over NATS" in run("client_page.py", sidecar.url, "regular")
    out = run("client_page.py", sidecar.url, "regular", "--socket", sidecar.shared_memory)
    assert "over shared memory" in out
    assert "128 cores for 512 tokens" in out


def test_transformers_generate(torch: Any, sidecar: LocalSidecar) -> None:
    out = run("transformers_generate.py", "--url", sidecar.url, "--tenant", "quarter", "--new", "8", "--context", "400")
    assert "compressed: 399 tokens" in out
    assert out.count("tokens/s") == 2


def test_local_backend(torch: Any, binary: str) -> None:
    assert "compressed: 799 tokens" in run("local_backend.py")
