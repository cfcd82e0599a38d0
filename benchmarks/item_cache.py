"""The item cache at a million items: bytes of an item, and puts while a reader ranks; a dict of rows is the peer.

The peer keeps each item as a dict by its key, as a server without an item cache does, and builds Arrow columns of 1000
items for a request. Bytes are what the process has grown by (resident memory), dictionaries and index included.

`python -m benchmarks.item_cache [--smoke|--full]`; the last line is one JSON object.
"""

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.features49 import as_batch, make_items, make_request, plan, spec
from benchmarks.measure import in_turns, options, print_result
from featuregen.engine import Engine
from featuregen.itemcache import ItemCache

TEN_MILLION = 10_000_000
UPDATE = 1000


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measures and prints."""
    chosen = options(__doc__.splitlines()[0])
    count = 20_000 if chosen.smoke else 1_000_000
    made, items = plan(), make_items(count)
    engine, cache = Engine(made), ItemCache(made, spec().sources)
    names = [column.name for column in cache.inputs]
    needed = [column.name for column in made.inputs if column.name.startswith("item.")]
    table = pa.Table.from_batches([items.select(names)])
    before, began = resident(), time.perf_counter()
    for start in range(0, count, 50_000):
        cache.put(table.slice(start, 50_000))
    filled, grown = time.perf_counter() - began, resident() - before
    each = grown / count
    print(f"{count:,} items of {len(names)} columns put in {filled:.1f} s: {count / filled:,.0f} items/s")
    print(f"{each:.0f} bytes an item; 10 million items at this size: {each * TEN_MILLION / 1e9:.2f} GB")

    request = make_request(0, items, 1000)
    keys, user = items.column("item.item_id").take(pa.array(request["rows"])), as_batch(made, request)
    few = table.slice(0, 20_000)
    rows = {row["item.item_id"]: row for row in few.to_pylist()}
    some = few.column("item.item_id").to_pylist()[:1000]
    schema = pa.schema([items.schema.field(name) for name in needed])

    def ours() -> object:
        return engine.rank_cached(user, keys, {}, {}, request["now_ms"], cache)

    def peer() -> object:
        batch = pa.RecordBatch.from_pylist([rows[key] for key in some], schema=schema)
        return engine.rank(user, batch, {}, {}, request["now_ms"])

    times = in_turns({"ours": ours, "peer": peer}, 1.0 if chosen.smoke else 6.0)

    done, put = threading.Event(), [0]
    rng = np.random.default_rng(1)

    def write() -> None:
        while not done.is_set():
            cache.put(table.slice(int(rng.integers(0, count - UPDATE)), UPDATE))
            put[0] += UPDATE

    writer, latencies = threading.Thread(target=write), []
    writer.start()
    began = time.perf_counter()
    while time.perf_counter() - began < (2.0 if chosen.smoke else 10.0):
        start = time.perf_counter()
        ours()
        latencies.append(time.perf_counter() - start)
    done.set()
    writer.join()
    rate = put[0] / (time.perf_counter() - began)
    p50, p99 = (1e3 * float(value) for value in np.percentile(latencies, [50, 99]))
    print(f"while a reader ranks 1000 items at p50 {p50:.2f} ms, p99 {p99:.2f} ms: {rate:,.0f} puts/s")
    print_result(
        "item_cache",
        times["ours"],
        times["peer"],
        "ms",
        bytes_per_item=round(each),
        gb_at_10_million=round(each * TEN_MILLION / 1e9, 2),
        items_per_s=round(count / filled),
        puts_per_s_while_reading=round(rate),
        reader_p99_ms=round(p99, 3),
    )


if __name__ == "__main__":
    main()
