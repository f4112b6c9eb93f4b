"""Send a KV page to semproxy and read the cores: python send_page.py nats://127.0.0.1:4222 acme page.safetensors"""
import asyncio, sys
import nats
from safetensors.numpy import load

async def main(url, tenant, file):
    nc = await nats.connect(url)
    reply = await nc.request(f"kv.{tenant}.v1.compress", open(file, "rb").read(), timeout=10)
    if reply.headers["Semproxy-Status"] != "ok":
        sys.exit(f"{reply.headers['Semproxy-Code']}: {reply.data.decode()}")
    cores = load(reply.data)  # k, v, counts, bias, positions; and slots where they are packed
    print({name: t.shape for name, t in cores.items()}, "ratio", reply.headers["Semproxy-Ratio"])
    await nc.close()

asyncio.run(main(*sys.argv[1:]))
