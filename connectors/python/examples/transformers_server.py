"""Serve a transformers model behind semproxy's proxy: /v1/completions as OpenAI speaks it, decoding on cores.

    semproxy serve ... --proxy-listen 127.0.0.1:8080 --proxy-engine-url http://127.0.0.1:8000 --proxy-engine-kind vllm
    python examples/transformers_server.py --url nats://127.0.0.1:4222 --port 8000

The proxy says for each request whose it is and whether its KV may be compressed (kv_transfer_params). One request at a
time, greedy, text prompts: it shows how an engine of one's own is connected, and is what `semproxy prove --engine` is tested with.
"""

from __future__ import annotations

import argparse
import functools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache
from transformers_generate import ROOT, load

from semproxy_kv import Client, Options, SemproxyError
from semproxy_kv.hf import capture_queries, compress, install

ROUTES = {"/v1/completions": "text_completion"}


class Engine:
    def __init__(self, folder: Path, url: str) -> None:
        self.name, self.url = folder.name, url
        self.model, self.tokenizer = load(folder)
        install(self.model)
        self.lock = threading.Lock()

    @functools.cache  # noqa: B019 - lives as long as the process
    def client(self, tenant: str) -> Client:
        return Client(self.url, Options(tenant=tenant))

    @torch.inference_mode()
    def answer(self, prompt: str, limit: int, params: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
        """(text, logprob, tokens of the prompt) of each token."""
        ids = self.tokenizer(prompt, return_tensors="pt").input_ids.to(self.model.device)
        total = ids.shape[1]
        cache = DynamicCache(config=self.model.config)
        with capture_queries() as queries:
            self.model(ids[:, :-1], cache=cache)
        if params.get("compress") and total > 64:
            try:
                compress(
                    self.model, cache, ids[:, :-1], client=self.client(params["tenant"]), queries=queries,
                    sequence=params.get("object"), model_name=self.name,
                )  # fmt: skip
            except SemproxyError as e:
                print("computed without semproxy:", e, flush=True)
        tokens, last, shown = [], ids[:, -1:], ""
        for _ in range(limit):
            scores = (
                self.model(last, cache=cache, position_ids=torch.tensor([[cache.get_seq_length()]])).logits[0, -1].float().log_softmax(-1)
            )
            best = int(scores.argmax())
            if best == self.tokenizer.eos_token_id:
                return
            tokens.append(best)
            text = self.tokenizer.decode(tokens)
            yield text[len(shown) :], float(scores[best]), total
            shown, last = text, scores.argmax()[None, None]


def handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            """Nothing."""

        def reply(self, status: int, body: Any) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            found = {"/health": {}, "/v1/models": {"object": "list", "data": [{"id": engine.name, "object": "model"}]}}
            self.reply(200 if self.path in found else 404, found.get(self.path, {"error": {"message": "there is no such path"}}))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            if self.path not in ROUTES or not isinstance(asked.get("prompt"), str):
                self.reply(400, {"error": {"message": "only /v1/completions with one text"}})
                return
            with engine.lock:
                steps = engine.answer(asked["prompt"], asked.get("max_tokens") or 16, asked.get("kv_transfer_params") or {})
                if asked.get("stream"):
                    self.stream(steps)
                else:
                    self.whole(steps, asked.get("logprobs"))

        def chunk(self, text: str, logprob: float | None) -> dict[str, Any]:
            said = None if logprob is None else {"tokens": [text], "token_logprobs": [logprob]}
            return {"object": "text_completion", "model": engine.name, "choices": [{"index": 0, "text": text, "logprobs": said}]}

        def whole(self, steps: Iterator[tuple[str, float, int]], logprobs: object) -> None:
            found = list(steps)
            answer = self.chunk("".join(text for text, _, _ in found), None)
            if logprobs:
                answer["choices"][0]["logprobs"] = {"tokens": [text for text, _, _ in found], "token_logprobs": [p for _, p, _ in found]}
            self.reply(200, answer | {"usage": {"prompt_tokens": found[0][2] if found else 0, "completion_tokens": len(found)}})

        def stream(self, steps: Iterator[tuple[str, float, int]]) -> None:
            first = next(steps, None)  # the pages are sent before the answer begins
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

            def event(text: str) -> None:
                data = f"data: {text}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            count, total = 0, 0
            while first is not None:
                text, logprob, total = first
                count += 1
                event(json.dumps(self.chunk(text, logprob)))
                first = next(steps, None)
            event(json.dumps({"choices": [], "usage": {"prompt_tokens": total, "completion_tokens": count}}))
            event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

    return Handler


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, default=ROOT / "configs/eval", help="folder of the model")
    p.add_argument("--url", required=True, help="NATS server of semproxy")
    p.add_argument("--port", type=int, default=0, help="on loopback; 0: the system's choice")
    a = p.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", a.port), handler(Engine(a.model, a.url)))
    print(f"serving http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
