"""Unmodified public clients against the proxy: only the base URL is its own. Prints one line per check; exits non-zero at a failure."""
import sys

import httpx2
import openai
from huggingface_hub import InferenceClient
from huggingface_hub.errors import TextGenerationError

url, key, poor = sys.argv[1:4]
client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
hello = [{"role": "user", "content": "hello " * 50}]


def check(name, ok, got=None):
    print(("ok " if ok else "FAILED ") + name + ("" if ok else f": got {got!r}"))
    if not ok:
        sys.exit(1)


def raises(name, kind, call, code=None):
    try:
        got = call()
    except kind as e:
        check(name, code is None or getattr(e, "code", None) == code, getattr(e, "code", e))
        return
    check(name, False, got)


r = client.chat.completions.create(model="llama-3", messages=hello)
check("chat", r.choices[0].message.content == "hello" and r.usage.completion_tokens == 3, r)

raw = client.chat.completions.with_raw_response.create(model="llama-3", messages=hello)
check("decision header", "profile=" in raw.headers["semproxy-decision"], raw.headers)
check("request id", raw.request_id == raw.headers["x-request-id"], raw.headers)

chunks = list(client.chat.completions.create(model="llama-3", messages=hello, stream=True, max_tokens=4))
check("stream", [c.choices[0].delta.content for c in chunks] == ["t0", "t1", "t2", "t3"], chunks)
check("stream without usage that was not asked for", all(c.usage is None for c in chunks), chunks)

chunks = list(client.chat.completions.create(model="llama-3", messages=hello, stream=True, stream_options={"include_usage": True}))
check("stream with usage", chunks[-1].usage.completion_tokens == 3 and not chunks[-1].choices, chunks)

tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
r = client.chat.completions.create(model="llama-3", messages=[{"role": "user", "content": "use the tool"}], tools=tools)
check("tools", r.choices[0].message.tool_calls[0].function.name == "f", r)

r = client.completions.create(model="llama-3", prompt=[1, 2, 3], extra_body={"kv_transfer_params": {"tenant": "globex"}})
check("completions with token ids", r.usage.completion_tokens == 3, r)

raises("refused by the engine", openai.BadRequestError, lambda: client.chat.completions.create(model="llama-3", messages=[{"role": "user", "content": "error"}]))
raises("unknown key", openai.AuthenticationError, lambda: client.with_options(api_key="wrong").models.list(), "identity.unknown_key")
raises("unknown path", openai.NotFoundError, lambda: client.get("/../admin", cast_to=object))
raises("out of tokens", openai.RateLimitError, lambda: [client.with_options(api_key=poor).completions.create(model="m", prompt="x", max_tokens=100) for _ in range(2)], "limit.tokens")
raises(
    "engine that dies in mid-stream",
    (openai.APIError, httpx2.RemoteProtocolError),
    lambda: list(client.chat.completions.create(model="llama-3", messages=[{"role": "user", "content": "die"}], stream=True)),
)

hf = InferenceClient(base_url=url, token=key)
check("TGI generate", hf.text_generation("hello there", max_new_tokens=2) == "hello", None)
got = list(hf.text_generation("hello there", stream=True))
check("TGI stream", got == ["a", "b"], got)
raises("TGI unknown key", TextGenerationError, lambda: InferenceClient(base_url=url, token="wrong").text_generation("hello"))
got = hf.chat.completions.create(model="llama-3", messages=hello)
check("TGI chat", got.choices[0].message.content == "hello", got)
