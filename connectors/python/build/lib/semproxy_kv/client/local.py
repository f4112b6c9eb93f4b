"""A semproxy of one's own: the binary as a child process, with its NATS server embedded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from ..errors import SemproxyError
from ..program import bundled
from .options import Options
from .sync import Client

BINARY = "SEMPROXY_BIN"
START_TIME = 30.0  # seconds

POLICY = """apiVersion: semproxy.io/v1
profiles:
  local: {{ method: {method}, ratio: {ratio}, budget: {budget} }}
tenants:
  local:
    rules: [ {{ profile: local }} ]
"""


def find_binary() -> str:
    """The semproxy binary: what SEMPROXY_BIN names, else the one that the wheel carries, else the one on PATH."""
    named = os.environ.get(BINARY, "")
    if named and not os.access(named, os.X_OK):
        raise SemproxyError("local.no_binary", f"{BINARY} names {named}, which is not a program")
    found = named or str(bundled() or "") or shutil.which("semproxy")
    if not found:
        hint = "build it with `make build` in a clone of semproxy and put ./bin on PATH, or name it in SEMPROXY_BIN"
        raise SemproxyError("local.no_binary", f"there is no semproxy program on PATH: {hint}")
    return found


class LocalSidecar:
    """A running sidecar on loopback ports that the system chooses. It ends with close(), or with this process."""

    def __init__(self, policy: str, *, tokenizer: str = "", args: tuple[str, ...] = ()) -> None:
        """policy is the text of a policy (docs/reference/policy.md); tokenizer is the path of a tokenizer.json for all models; args
        are more flags of `semproxy serve`."""
        self._folder = tempfile.TemporaryDirectory(prefix="semproxy-")
        folder = Path(self._folder.name)
        self.policy = folder / "policy.yaml"  # read again when it changes
        self.policy.write_text(policy)
        command = [find_binary(), "serve", "--policy-path", str(self.policy), "--admin-listen", "127.0.0.1:0"]
        if "--nats-url" not in args:
            command += ["--nats-embedded-listen", "127.0.0.1:0"]
        if tokenizer:
            models = [{"match": "*", "tokenizerFile": str(Path(tokenizer).resolve())}]
            (folder / "semproxy.yaml").write_text(json.dumps({"models": models}))  # JSON is YAML
            command += ["--config", str(folder / "semproxy.yaml")]
        self.shared_memory = str(folder / "shm.sock") if "--shared-memory-socket" not in args else ""
        if self.shared_memory:
            command += ["--shared-memory-socket", self.shared_memory]
        env = {k: v for k, v in os.environ.items() if not k.startswith("SEMPROXY_")}
        self.log: list[str] = []  # its last lines
        self._serving = threading.Event()
        self.url = self.admin = ""
        self.process = subprocess.Popen(
            command + list(args), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, name="semproxy log", daemon=True)
        self._reader.start()
        if not self._serving.wait(START_TIME) or not self.url:
            self.close()
            raise SemproxyError("local.failed", "semproxy did not start: " + " | ".join(self.log[-5:]))

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.log = [*self.log[-199:], line.rstrip()]
            if not self.url and '"serving"' in line:
                said = json.loads(line)
                self.url, self.admin = said["nats"], said["admin"]
                self._serving.set()
        self._serving.set()

    def client(self, tenant: str = "local") -> Client:
        """A client of this sidecar, over shared memory where there is some."""
        return Client(self.url, Options(tenant=tenant, shared_memory=self.shared_memory))

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Let it answer what it has accepted, and end it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> LocalSidecar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def local_policy(ratio: float, method: str = "weighted", budget: str = "adaptive") -> str:
    """The policy of backend="local": one tenant, local, all of whose pages are compressed to ratio."""
    return POLICY.format(ratio=ratio, method=method, budget=budget)
