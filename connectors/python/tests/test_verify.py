"""`verify` in a tenant's policy, on a real engine: a transformers model behind semproxy's proxy, whose KV semproxy compresses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import TOKENIZER
from test_prove import SERVER, free_port

from semproxy_kv import LocalSidecar

# harmful keeps so little that facts are lost; harmless merges what is nearly the same. Both tenants allow 2 % of answers to change.
POLICY = """apiVersion: semproxy.io/v1
profiles:
  harmful: { method: semantic, ratio: 0.03, exact: 0, protect: { sinks: 1, recent: 4 } }
  harmless: { method: weighted, ratio: 0.98 }
tenants:
  harmful: { verify: { share: 1, maxChanged: 0.02 }, rules: [ { profile: harmful } ] }
  harmless: { verify: { share: 1, maxChanged: 0.02 }, rules: [ { profile: harmless } ] }
"""

WITHIN = 64  # requests within which the harmful profile is found: two looks after the first


class Proxied:
    """A tenant's way to the engine."""

    def __init__(self, sidecar: LocalSidecar, engine: subprocess.Popen[str]) -> None:
        self.sidecar, self.engine = sidecar, engine
        logged = [json.loads(line) for line in sidecar.log if line.startswith("{")]
        self.url = next(line["url"] for line in logged if line.get("msg") == "proxying")
        self.admin = next(line["admin"] for line in logged if line.get("admin"))

    def ask(self, prompt: str) -> str:
        """Whether the prompt was compressed, as the answer says."""
        body = json.dumps({"model": "eval", "prompt": prompt, "max_tokens": 8}).encode()
        request = urllib.request.Request(self.url + "/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
            return str(answer.headers["Semproxy-Decision"])

    def tally(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.admin + "/api/v1/verify", timeout=10) as answer:
            found = json.load(answer)
        tallies = found["verify"]
        return dict(tallies[0]) if tallies else {"samples": 0}


@pytest.fixture
def open_as(request: pytest.FixtureRequest, torch: Any, binary: str) -> Any:
    def make(tenant: str) -> Proxied:
        port = free_port()
        args = (
            "--proxy-listen", "127.0.0.1:0", "--proxy-engine-url", f"http://127.0.0.1:{port}", "--proxy-engine-kind", "vllm",
            "--proxy-identity-anonymous-tenant", tenant, "--proxy-gate-enabled=false", "--proxy-verify-every", "1ms",
        )  # fmt: skip
        sidecar = LocalSidecar(POLICY, tokenizer=str(TOKENIZER), args=args)
        sidecar.__enter__()
        request.addfinalizer(lambda: sidecar.__exit__(None, None, None))
        engine = subprocess.Popen(
            [sys.executable, str(SERVER), "--url", sidecar.url, "--port", str(port)], stdout=subprocess.PIPE, text=True
        )

        def stop() -> None:
            engine.terminate()
            engine.wait()
            if engine.stdout:
                engine.stdout.close()

        request.addfinalizer(stop)
        assert engine.stdout
        assert engine.stdout.readline().startswith("serving")
        return Proxied(sidecar, engine)

    return make


def prompts(cases: list[dict[str, Any]]) -> list[str]:
    from tokenizers import Tokenizer

    t = Tokenizer.from_file(str(Path(TOKENIZER)))
    return [t.decode(case["context"] + case["questions"][: case["answers"][0]["at"]]) for case in cases]


def run(proxied: Proxied, texts: list[str]) -> tuple[int, dict[str, Any]]:
    """How many requests it takes until the profile is stepped back, one after the other; 0: it is not."""
    for i, text in enumerate(texts):
        said = proxied.ask(text)
        if 'gate="verify"' in said:
            assert said.startswith("exact")
            return i, proxied.tally()
        assert said.startswith("compress"), said
        until = time.monotonic() + 120
        while proxied.tally()["samples"] <= i:
            assert time.monotonic() < until, proxied.tally()
            time.sleep(0.01)
    return 0, proxied.tally()


def test_a_harmful_profile_is_found_and_stepped_back(open_as: Any, recall_cases: list[dict[str, Any]]) -> None:
    after, tally = run(open_as("harmful"), prompts(recall_cases))
    print(f"stepped back after {after} requests: {tally}")
    assert 0 < after <= WITHIN, tally
    assert tally["steppedBack"]
    assert tally["control"] == 0  # the engine repeats itself
    assert tally["share"]["low"] > 0.02


def test_a_harmless_profile_is_not(open_as: Any, recall_cases: list[dict[str, Any]]) -> None:
    asked = prompts(recall_cases)[:32]  # two looks
    after, tally = run(open_as("harmless"), asked)
    print(f"not stepped back: {tally}")
    assert after == 0, tally
    assert not tally["steppedBack"]
    assert tally["samples"] == len(asked)
    assert 0 < tally["logprobDifference"]["value"] < 0.5  # it was compressed, and compared
