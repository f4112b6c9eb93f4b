"""Times PyTorch's scaled_dot_product_attention for one decoding step, over the shapes of `semproxy-bench decode`.

Prints a JSON object per shape. The cache is contiguous here and paged there, so that PyTorch has the easier task.
"""

import argparse
import json
import time

import torch
from torch.nn.functional import scaled_dot_product_attention


def step_seconds(batch: int, tokens: int, args: argparse.Namespace) -> float:
    """Mean time of one step."""
    make = lambda heads, n: torch.randn(batch, heads, n, args.dim, device=args.device, dtype=torch.bfloat16)  # noqa: E731
    q, k, v = make(args.q_heads, 1), make(args.kv_heads, tokens), make(args.kv_heads, tokens)
    sync = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    run = lambda: scaled_dot_product_attention(q, k, v, enable_gqa=True)  # noqa: E731
    for _ in range(3):
        run()
    sync()
    start = time.perf_counter()
    for _ in range(args.repeat):
        run()
    sync()
    return (time.perf_counter() - start) / args.repeat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--context", type=int, nargs="+", default=[4096, 32768, 131072])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--q-heads", type=int, default=32)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=50)
    args = parser.parse_args()
    for context in args.context:
        for batch in args.batch:
            row = {"context": context, "batch": batch, "bytes": 4 * batch * args.kv_heads * context * args.dim}
            try:
                row["step_microseconds"] = round(1e6 * step_seconds(batch, context, args), 1)
            except torch.OutOfMemoryError:
                row["skipped"] = "does not fit the device"
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
