"""`semproxy-kv`: what of this package is run from a shell."""

from __future__ import annotations

import sys


def main() -> None:
    """semproxy-kv bench ..."""
    if len(sys.argv) < 2 or sys.argv[1] != "bench":
        raise SystemExit("usage: semproxy-kv bench --model DIR --text FILE ... (--help says more)")
    from .vllm.bench import arguments, bench

    bench(arguments(sys.argv[2:]))


if __name__ == "__main__":
    main()
