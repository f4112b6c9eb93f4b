"""`semproxy prove --engine` against a real engine: a transformers model behind semproxy's proxy, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import POLICY, ROOT, TOKENIZER

from semproxy_kv import LocalSidecar

SERVER = Path(__file__).resolve().parents[1] / "examples/transformers_server.py"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def proxied(tenant: str) -> Iterator[str]:
    """The URL of semproxy's proxy, whose requests are the tenant's, in front of the engine."""
    engine = free_port()
    args = (
        "--proxy-listen", "127.0.0.1:0", "--proxy-engine-url", f"http://127.0.0.1:{engine}", "--proxy-engine-kind", "vllm",
        "--proxy-identity-anonymous-tenant", tenant, "--proxy-gate-enabled=false",
    )  # fmt: skip
    with LocalSidecar(POLICY, tokenizer=str(TOKENIZER), args=args) as sidecar:
        command = [sys.executable, str(SERVER), "--url", sidecar.url, "--port", str(engine)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout
            assert server.stdout.readline().startswith("serving")
            said = [json.loads(line) for line in sidecar.log if '"proxying"' in line]
            yield said[0]["url"]
        finally:
            server.terminate()
            server.wait()
            if server.stdout:
                server.stdout.close()


@pytest.fixture(scope="module")
def prompts(recall_cases: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer

    t = Tokenizer.from_file(str(TOKENIZER))
    lines = []
    for case in recall_cases[:4]:
        for answer in case["answers"][:2]:
            at = answer["at"]
            text = t.decode(case["context"] + case["questions"][:at])
            lines.append({"prompt": text, "answer": t.decode(case["questions"][at : at + 4]), "max_tokens": 4})
    path = tmp_path_factory.mktemp("prompts") / "own.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def prove(binary: str, url: str, prompts: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [binary, "prove", "--engine", url, "--prompts", str(prompts), "--settle", "0s", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_own_prompts_are_proved_on_cores(torch: Any, binary: str, prompts: Path, tmp_path: Path) -> None:
    with proxied("quarter") as url:
        answers, page = tmp_path / "answers.json", tmp_path / "own.html"
        done = prove(binary, url, prompts, "--min-prompts", "8", "--max-loss", "1", "--html", str(page), "--answers", str(answers))
        report = json.loads(answers.read_text())
        (result,) = report["results"]
        assert done.returncode == 0, done.stdout + done.stderr
        assert "**holds**" in done.stdout
        assert "| quarter |" in done.stdout
        assert "8/8" in done.stderr
        assert (result["on_cores"], result["asked"], result["profile"]) == (8, 8, "quarter")
        assert result["score_exact"] > 0.6
        assert result["changed_exact"] == 0
        assert 0.2 < result["ratio"] < 0.3
        assert result["logprob_difference"] > 0
        assert result["logprob_difference_exact"] < 1e-3
        assert result["ttft_ms"][1] > 0
        assert "Own prompts on cores" in page.read_text()

        few = prove(binary, url, prompts)  # 8 prompts are too few for the default
        assert few.returncode == 1
        assert "prove.no_answer" in few.stderr
        assert "needs 20" in few.stdout


def test_what_the_policy_leaves_exact_is_no_answer(torch: Any, binary: str, prompts: Path) -> None:
    with proxied("exact") as url:
        done = prove(binary, url, prompts, "--min-prompts", "2")
        assert done.returncode == 1
        assert "left every prompt exact" in done.stdout
        assert "prove.no_answer" in done.stderr
