"""A load generator: keeps `concurrency` requests in flight on raw connections for some seconds, prints one JSON line.

`python -m benchmarks.http_load <port> <path> <file of bodies, one a line> <concurrency> <seconds>`. It is a process of
its own, so that the client's work is not timed as the server's.
"""

import asyncio
import json
import sys
import time
from itertools import cycle
from pathlib import Path

import uvloop


async def connection(port: int, requests: list[bytes], until: float, taken: list[float], failed: list[bytes]) -> None:
    """Sends one request after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    for request in cycle(requests):
        began = time.perf_counter()
        if began >= until:
            break
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length:" in head:
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        else:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        taken.append(time.perf_counter() - began)
        if b" 200 " not in head.split(b"\r\n")[0]:
            failed.append(head.split(b"\r\n")[0])
    writer.close()


async def load(port: int, path: str, bodies: list[bytes], concurrency: int, seconds: float) -> dict[str, float]:
    """Returns p50, p99 in ms, requests/s and the number of answers that are not 200."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [head.encode() + str(len(b)).encode() + b"\r\n\r\n" + b for b in bodies]
    taken: list[float] = []
    failed: list[bytes] = []
    began = time.perf_counter()
    turned = [requests[i % len(requests) :] + requests[: i % len(requests)] for i in range(0, concurrency * 7, 7)]
    await asyncio.gather(*(connection(port, r, began + seconds, taken, failed) for r in turned))
    wall = time.perf_counter() - began
    taken.sort()
    return {
        "p50_ms": taken[len(taken) // 2] * 1e3,
        "p99_ms": taken[int(len(taken) * 0.99)] * 1e3,
        "per_s": len(taken) / wall,
        "n": len(taken),
        "failed": len(failed),
    }


if __name__ == "__main__":
    uvloop.install()
    found = load(
        int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes().splitlines(), int(sys.argv[4]), float(sys.argv[5])
    )
    print(json.dumps(asyncio.run(found)))
