"""Generate with a full and with a compressed cache, and print memory, speed and text of both.

    python examples/transformers_generate.py                                  # the small trained model of this repository
    python examples/transformers_generate.py --model DIR --text prompt.txt    # a model of yours (Llama, Mistral, Qwen2, Qwen3)

Without --url it runs the semproxy binary (SEMPROXY_BIN, or on PATH) as a child, with one policy: --ratio.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedTokenizerFast

from semproxy_kv import Client, Options
from semproxy_kv.hf import cache_bytes, compress, install

ROOT = Path(__file__).resolve().parents[3]


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", type=Path, default=ROOT / "configs/eval", help="folder of the model")
    p.add_argument("--text", type=Path, help="file with the prompt; default: the first of configs/eval/text.jsonl")
    p.add_argument("--context", type=int, default=864, help="at most so many tokens of it")
    p.add_argument("--new", type=int, default=96, help="tokens to generate")
    p.add_argument("--ratio", type=float, default=0.25, help="cores per token, without --url")
    p.add_argument("--url", help="NATS server of a running semproxy, such as nats://127.0.0.1:4222")
    p.add_argument("--tenant", default="default", help="whose policy decides, with --url")
    return p.parse_args()


def load(folder: Path) -> tuple[Any, Any]:
    """The model and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto" if torch.cuda.is_available() else torch.float32).eval()
    if (folder / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
    else:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(ROOT / "configs/demo/tokenizer.json"))
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


@torch.no_grad()
def main() -> None:
    args = arguments()
    model, tokenizer = load(args.model)
    install(model)
    text = args.text.read_text() if args.text else json.loads((ROOT / "configs/eval/text.jsonl").read_text().splitlines()[0])["text"]
    ids = tokenizer(text, return_tensors="pt").input_ids[:, : args.context].to(model.device)

    full = DynamicCache(config=model.config)
    model(ids[:, :-1], cache=full)  # the last token is generate()'s
    small = copy.deepcopy(full)
    if args.url:
        with Client(args.url, Options(tenant=args.tenant)) as client:
            report = compress(model, small, ids, client=client)
    else:
        report = compress(model, small, ids, backend="local", ratio=args.ratio)
    print(f"semproxy: {report}, {report.seconds:.2f} s, rule {report.rule or '-'}")

    for name, cache in (("full", full), ("compressed", small)):
        size, began = cache_bytes(cache), time.perf_counter()
        out = model.generate(ids, cache=cache, max_new_tokens=args.new, min_new_tokens=args.new, do_sample=False, pad_token_id=0)
        speed = args.new / (time.perf_counter() - began)
        print(f"\n{name}: {size / 2**20:.2f} MiB of cache for {ids.shape[1] - 1} tokens, {speed:.1f} tokens/s")
        print("  " + tokenizer.decode(out[0, ids.shape[1] :]).replace("\n", "\n  "))


if __name__ == "__main__":
    main()
