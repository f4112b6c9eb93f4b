"""The semproxy program that a platform wheel carries, and the command `semproxy` that runs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def bundled() -> Path | None:
    """The program inside this package; None where the package was installed from its source."""
    path = Path(__file__).with_name("bin") / ("semproxy.exe" if os.name == "nt" else "semproxy")
    return path if os.access(path, os.X_OK) else None


def main() -> None:
    """Becomes the semproxy program."""
    path = bundled()
    if path is None:
        sys.exit("semproxy: this installation has no program in it; build it with `make build` in a clone, or install a wheel of .ci/wheel")
    os.execv(path, [str(path), *sys.argv[1:]])
