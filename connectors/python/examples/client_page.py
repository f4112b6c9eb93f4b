"""Build a page with numpy, send it, and read its cores head by head: for engines that have no adapter here.

python examples/client_page.py nats://127.0.0.1:4222 acme                          # over NATS
python examples/client_page.py nats://127.0.0.1:4222 acme --socket /run/semproxy.sock   # over shared memory
"""

from __future__ import annotations

import argparse

import numpy as np

from semproxy_kv import Client, Options
from semproxy_kv.wire import Cores, Page, Rope, Tensor, fingerprint

LAYERS, HEADS, TOKENS, DIM = 4, 2, 512, 64


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("url")
    p.add_argument("tenant")
    p.add_argument("--socket", default="", help="Unix socket of the sidecar (sharedMemory.socket)")
    args = p.parse_args()

    rng = np.random.default_rng(1)
    k, v = rng.standard_normal((2, LAYERS, HEADS, TOKENS, DIM)).astype(np.float16)
    page = Page(
        model="my-model",
        sequence="request-1",
        layout=fingerprint("my-engine", "1.0", "LHTD", HEADS, DIM),
        tokens_total=TOKENS,
        rope=Rope("default", theta=10000.0, rotary_dim=DIM),
        k=Tensor.of(k),
        v=Tensor.of(v),
        token_ids=Tensor.of(rng.integers(0, 1000, TOKENS, dtype=np.int32)),
        positions=Tensor.of(np.arange(TOKENS, dtype=np.int32)),
    )
    with Client(args.url, Options(tenant=args.tenant, shared_memory=args.socket)) as client:
        result = client.compress(page.encode())
    cores = Cores.decode(result.body)
    way = "shared memory" if result.shared else "NATS"
    print(f"{result.outcome} over {way} in {result.duration * 1000:.1f} ms; ratio {cores.ratio:.3f}; {cores.fidelity}")
    for layer, head, rows in cores.rows():
        counts = cores.counts.numpy().reshape(-1)[rows]
        print(f"layer {layer} head {head}: {len(counts)} cores for {counts.sum()} tokens, the largest stands for {counts.max()}")


if __name__ == "__main__":
    main()
