"""The examples that need vLLM or the OpenAI client run as they stand."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL, POLICY, TOKENIZER, missing

from semproxy_kv import LocalSidecar

if find_spec("vllm") is None:
    missing("vllm", "vllm is not installed")

from vllm_harness import KERNELS, Engine, engine_config

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RUN = "import runpy, sys, vllm_cpu; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def run(*command: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(not KERNELS, reason="this package of vLLM has no kernels for CPUs")
def test_vllm_generate(binary: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in MODEL.iterdir():
        (model / file.name).symlink_to(file)
    (model / "tokenizer.json").symlink_to(TOKENIZER)
    (model / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    text = tmp_path / "text.txt"
    text.write_text(json.loads((MODEL / "text.jsonl").read_text().splitlines()[0])["text"])
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER)) as s:
        args = ["--model", str(model), "--url", s.url, "--tenant", "regular", "--text", str(text), "--new", "8"]
        args += ["--dtype", "float32", "--kv-bytes", str(64 << 20)]
        out = run("-c", RUN, str(EXAMPLES / "vllm_generate.py"), *args)
    assert "computed in full: 800 tokens of prompt, 0 slots taken over" in out
    # 784 of 800 tokens in 196 cores
    found = re.search(r"with cores: 816 tokens of prompt, (\d+) slots taken over", out)
    assert found
    assert 160 <= int(found[1]) <= 224


@pytest.fixture
def engine() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answers as vLLM does, and keeps what it was told."""
    told: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Well asked."}}
            body = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage})
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_the_proxy_tells_is_what_the_connector_reads(binary: str, engine: tuple[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    """The OpenAI client's example through the real proxy; the connector takes tenant, object and decision from its words."""
    url, told = engine
    made = subprocess.run(
        [binary, "keys", "new", "--tenant", "regular", "--name", "test"], capture_output=True, text=True, check=True
    ).stdout
    key = re.search(r"sp-\S+", made)
    assert key
    keys = tmp_path / "keys.yaml"
    keys.write_text(made)
    args = (
        "--proxy-listen",
        "127.0.0.1:0",
        "--proxy-engine-url",
        url,
        "--proxy-identity-keys-file",
        str(keys),
        "--proxy-gate-enabled=false",
    )
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER), args=args) as s:
        base = next(json.loads(line)["url"] for line in s.log if '"proxying"' in line)
        out = run(str(EXAMPLES / "proxy_chat.py"), "--base-url", f"{base}/v1", "--key", key[0], "--model", "m", "How are you?")
        assert "Well asked." in out
        assert "decision: compress" in out
        assert "usage: 9 + 2 tokens" in out
        run(str(EXAMPLES / "proxy_chat.py"), "--base-url", f"{base}/v1", "--key", key[0], "--model", "m", "--exact", "And you?")
        assert [body["kv_transfer_params"]["compress"] for body in told] == [True, False]
        e = Engine(engine_config(s.url))
        try:
            for i, body in enumerate(told):
                assert body["cache_salt"]
                e.add(f"r{i}", list(range(30)), params=body["kv_transfer_params"])
            (tracked,) = e.side._tracked.values()
            params = told[0]["kv_transfer_params"]
            assert (tracked.tenant, tracked.sequence, tracked.traceparent) == ("regular", params["object"], params["traceparent"])
            e.run()
            e.assert_nothing_is_left()
        finally:
            e.close()
