"""Compress a cache without a server: the semproxy binary runs as a child of this process.

export SEMPROXY_BIN=$PWD/bin/semproxy      # or put it on PATH
python examples/local_backend.py
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedTokenizerFast

from semproxy_kv.hf import compress, install

ROOT = Path(__file__).resolve().parents[3]
TOKENIZER = ROOT / "configs/demo/tokenizer.json"


@torch.no_grad()
def main() -> None:
    model = AutoModelForCausalLM.from_pretrained(ROOT / "configs/eval", dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER))
    text = json.loads((ROOT / "configs/eval/text.jsonl").read_text().splitlines()[0])["text"]
    ids = tokenizer(text, return_tensors="pt").input_ids[:, :800]
    install(model)
    cache = DynamicCache(config=model.config)
    model(ids[:, :-1], cache=cache)
    # With its tokenizer semproxy cuts where the text pauses; without, by length alone.
    print(compress(model, cache, ids, backend="local", ratio=0.25, tokenizer=TOKENIZER, on_error="raise"))
    out = model.generate(ids, cache=cache, max_new_tokens=40, do_sample=False, pad_token_id=0)
    print(tokenizer.decode(out[0, ids.shape[1] :]))


if __name__ == "__main__":
    main()
