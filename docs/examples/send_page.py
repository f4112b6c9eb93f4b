"""Send a KV page to semproxy and read the cores: python send_page.py nats://127.0.0.1:4222 acme page.safetensors"""
import argparse, asyncio, sys
import nats
from safetensors.numpy import load

async def main(url, tenant, file):
    async def quiet(_): pass  # the error is printed once, below
    try:
        nc = await nats.connect(url, connect_timeout=5, allow_reconnect=False, max_reconnect_attempts=1, error_cb=quiet, inbox_prefix=f"_INBOX.{tenant}".encode())
        reply = await nc.request(f"kv.{tenant}.v1.compress", open(file, "rb").read(), timeout=10)
    except (OSError, nats.errors.Error) as e:
        sys.exit(f"{url}: {e or type(e).__name__}")
    if reply.headers["Semproxy-Status"] != "ok":
        sys.exit(f"{reply.headers['Semproxy-Code']}: {reply.data.decode()}")
    cores = load(reply.data)  # k, v, counts, bias, positions; and slots where they are packed
    print({name: t.shape for name, t in cores.items()}, "ratio", reply.headers["Semproxy-Ratio"])
    await nc.close()

args = argparse.ArgumentParser(description=__doc__)
for name in ("url", "tenant", "file"):
    args.add_argument(name)
asyncio.run(main(**vars(args.parse_args())))
