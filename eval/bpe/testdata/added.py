"""Writes added.json: what the tokenizers library makes of texts with added tokens. Run with its package installed: python added.py > added.json"""
import json
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

def byte_level(normalizer=None, prefix=False):
    tok = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if normalizer:
        tok.normalizer = normalizer
    return tok

def marks(pre=None, normalizer=None):
    letters = "▁abcdefghijklmnopqrstuvwxyzABCHI<>|_/[]0123456789.,é"
    vocab = {c: i for i, c in enumerate(letters)} | {"<unk>": 90} | {f"<0x{i:02X}>": 100 + i for i in range(256)}
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    if pre:
        tok.pre_tokenizer = pre
    if normalizer:
        tok.normalizer = normalizer
    return tok

def add(tok):
    tok.add_tokens([AddedToken("<|im_start|>", special=True, normalized=False), AddedToken("<|im_end|>", special=True, normalized=False),
                    AddedToken("<|im|>", normalized=False), AddedToken("[MASK]", lstrip=True, normalized=False), AddedToken("</s>", rstrip=True, normalized=False),
                    AddedToken("<both>", lstrip=True, rstrip=True, normalized=False), AddedToken("word", single_word=True, normalized=False),
                    AddedToken("Café", normalized=True), AddedToken("ab", normalized=True)])
    return tok

texts = ["", " ", "<|im_start|>user\nhi<|im_end|>\n", "a<|im|>b", "<|im_start|<|im_start|>", "x [MASK] y", "x   [MASK]y", "one</s>  two", "a <both> b<both>  <both>",
         "word words sword word, a_word word", "Cafe\u0301 Café cafe", "abab ab", "<|im_start|>", "<|im_end|> a", "a b  c", "  a", "a  ", "é<|im_end|>é", "aword", "wordword word"]
cases = {
    "byte level": add(byte_level()), "byte level, prefix": add(byte_level(prefix=True)), "byte level, NFC": add(byte_level(normalizers.NFC())),
    "metaspace always": add(marks(pre_tokenizers.Metaspace(prepend_scheme="always"))), "metaspace first": add(marks(pre_tokenizers.Metaspace(prepend_scheme="first"))),
    "metaspace never": add(marks(pre_tokenizers.Metaspace(prepend_scheme="never"))),
    "metaspace first, whole": add(marks(pre_tokenizers.Metaspace(prepend_scheme="first", split=False))),
    "Llama 2": add(marks(normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))),
    "Gemma": add(marks(pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁"))),
    "merged with previous": add(marks(pre_tokenizers.Split("a", "merged_with_previous"))), "merged with next": add(marks(pre_tokenizers.Split("a", "merged_with_next"))),
    "removed": add(marks(pre_tokenizers.Split(" ", "removed"))),
}
print(json.dumps([{"name": n, "tokenizer": json.loads(t.to_str()), "cases": [{"text": x, "ids": t.encode(x, add_special_tokens=False).ids} for x in texts]} for n, t in cases.items()], ensure_ascii=False, separators=(",", ":")))
