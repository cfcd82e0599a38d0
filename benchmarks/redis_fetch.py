"""500 random rows out of a million from Redis into one float32 matrix: our client path vs redis-py's MGET, one run.

Both build the keys, make one round trip and end with float32[500, 16]; the server's own time is part of both. Also
measured: rows/s written by `Tier.write_rows`, against redis-py's MSET.

`python -m benchmarks.redis_fetch [--smoke|--full]`; the last line is one JSON object.
"""

import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import redis

from benchmarks.measure import in_turns, options, print_result
from kuberec_api.training import RowType
from kuberec_runtime.publish.fetch import fetch_rows
from kuberec_runtime.publish.publication import row_prefix
from kuberec_runtime.publish.resp import Connection, parse_address
from kuberec_runtime.publish.tier import Tier

sys.path.insert(0, str(Path(__file__).parents[1] / "devcluster"))
from kuberec_devcluster.services import Redis

WIDTH, PER_REQUEST, NAMESPACE, TABLE = 16, 500, "kr:default/bench/00000000", "item_id"


def requests(rng: np.random.Generator, rows: int) -> Iterator[np.ndarray]:
    """Endless requests of random ids, different each time for longer than any cache remembers."""
    return cycle(rng.integers(0, rows, (2000, PER_REQUEST)))


def main() -> None:
    """Measures and prints."""
    chosen = options(__doc__)
    rows = 20_000 if chosen.smoke else 1_000_000
    seconds = 1.0 if chosen.smoke else 60.0 if chosen.full else 15.0
    rng = np.random.default_rng(0)
    values = rng.standard_normal((rows, WIDTH)).astype(np.float32)
    prefix = row_prefix(NAMESPACE, TABLE)
    with Redis() as server:
        tier, client = Tier(server.url), redis.Redis.from_url(server.url)
        began = time.perf_counter()
        tier.write_rows(NAMESPACE, TABLE, np.arange(rows), values, RowType.FLOAT32)
        written = rows / (time.perf_counter() - began)
        part = min(rows, 100_000)
        began = time.perf_counter()
        for at in range(0, part, 2000):
            client.mset({prefix + i.to_bytes(8, "little"): values[i].tobytes() for i in range(at, at + 2000)})
        written_peer = part / (time.perf_counter() - began)

        connection = Connection(parse_address(server.url))
        mine, theirs = requests(rng, rows), requests(rng, rows)

        def ours() -> np.ndarray:
            ids = {TABLE: next(mine)}
            return fetch_rows(connection, NAMESPACE, ids, {TABLE: WIDTH}, RowType.FLOAT32, 5.0)[TABLE][0]

        def peer() -> np.ndarray:
            found = client.mget([prefix + i.to_bytes(8, "little") for i in next(theirs).tolist()])
            return np.frombuffer(b"".join(found), np.float32).reshape(-1, WIDTH)

        ids = next(mine)
        direct = fetch_rows(connection, NAMESPACE, {TABLE: ids}, {TABLE: WIDTH}, RowType.FLOAT32, 5.0)[TABLE]
        assert direct[1].all() and np.array_equal(direct[0], values[ids])
        timings = in_turns({"ours": ours, "peer": peer}, seconds)
        mine_, theirs_ = timings["ours"], timings["peer"]
        print(f"{'500 rows of 64 B, ' + format(rows, ',') + ' in Redis':42s}{'ms':>8s}{'k rows/s':>10s}")
        for label, timing in (("ours (vectorised RESP)", mine_), ("redis-py + hiredis MGET", theirs_)):
            print(f"{label:42s}{timing.median * 1e3:8.3f}{PER_REQUEST / timing.median / 1e3:10.0f}")
        print(f"written: {written:,.0f} rows/s, redis-py MSET {written_peer:,.0f} rows/s")
        print_result(
            "redis_fetch",
            mine_,
            theirs_,
            "ms",
            writes_per_s=round(written),
            peer_writes_per_s=round(written_peer),
        )


if __name__ == "__main__":
    main()
