"""49 features of one user and 1000 items: our plan over cached items vs Polars eager vs pandas, one core, one run.

All three have computed before what an item alone decides. A request brings the candidates' keys, the user (for ours as
the Arrow row that a snapshot is, for the peers as Python values) and 200 events. Numbers are compared before anything
is timed; ids differ by the hash function only. Ours is also timed without the cache, items coming along as Arrow
columns, and in two threads that share a cache.

`python -m benchmarks.featuregen_rank [--smoke|--full]`; the last line is one JSON object.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import pyarrow as pa

from benchmarks.features49 import LOOKUPS, MATCHES, OVERLAPS, TOTALS, as_batch, make_items, make_request, plan, spec
from benchmarks.features49_frames import PandasFeatures, PolarsFeatures
from benchmarks.measure import options, print_result, summary
from featuregen.engine import Engine, Features
from featuregen.itemcache import ItemCache

NUMBERS = [*(f"u_{name}" for name in (*LOOKUPS, *MATCHES)), *OVERLAPS]


def check(ours: Features, frame: Any, side: dict[str, Any]) -> None:
    """The same numbers in ours and in a frame of a peer."""
    for name in NUMBERS:
        assert np.allclose(ours.columns[name].values[:, 0], np.asarray(frame[name], np.float32), rtol=1e-6), name
    for name in TOTALS:
        assert ours.columns[name].values[0, 0] == side[name], name
    assert len(ours.columns["recent__item_id"].ids) == len(side["recent__item_id"])


def timed(calls: list[Callable[[int], object]], rounds: int) -> list[list[float]]:
    """Seconds of each call, in turns of eight requests each, as a replica has them: one after the other.

    Turns, so that all sides see the same noise; the first request of a turn finds the caches full of another side's
    data and is not counted. The argument of a call is a number that grows.
    """
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(0, rounds, 8):
        for index, call in enumerate(calls):
            call(number)
            for following in range(number, number + 8):
                start = time.perf_counter()
                call(following)
                taken[index].append(time.perf_counter() - start)
    return taken


def requests_per_s(calls: list[Callable[[int], object]], seconds: float) -> float:
    """Requests per second of threads that run a call each, for so many seconds."""
    done = [0] * len(calls)
    end = time.perf_counter() + seconds

    def run(index: int) -> None:
        while time.perf_counter() < end:
            calls[index](done[index])
            done[index] += 1

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def main() -> None:
    """Measures and prints."""
    chosen = options(__doc__.splitlines()[0])
    catalogue, rounds = (20_000, 20) if chosen.smoke else (200_000, 2000 if chosen.full else 300)
    items, made = make_items(catalogue), plan()
    assert len(made.outputs) == 49
    engine, cache = Engine(made), ItemCache(made, spec().sources)
    cache.put(items)
    polars, pandas = PolarsFeatures(items), PandasFeatures(items)
    requests = [make_request(number, items, 1000) for number in range(32)]
    keys = [items.column("item.item_id").take(pa.array(request["rows"])) for request in requests]
    names = [list_.to_pylist() for list_ in keys]
    users = [as_batch(made, request) for request in requests]
    needed = [column.name for column in made.inputs if column.name.startswith("item.")]
    along = [items.select(needed).take(pa.array(request["rows"])) for request in requests]

    def of_engine(engine: Engine) -> Callable[[int], Features]:
        def call(number: int) -> Features:
            at = number % len(requests)
            return engine.rank_cached(users[at], keys[at], {}, {}, requests[at]["now_ms"], cache)

        return call

    cached = of_engine(engine)

    def plain(number: int) -> Features:
        at = number % len(requests)
        return engine.rank(users[at], along[at], {}, {}, requests[at]["now_ms"])

    for number in range(8):
        ours, beside = cached(number), plain(number)
        for name, column in ours.columns.items():
            for part in ("ids", "offsets", "values"):
                a, b = getattr(column, part), getattr(beside.columns[name], part)
                assert (a is None and b is None) or np.array_equal(a, b), (name, part)
        check(ours, *polars.rank(names[number], requests[number]))
        check(ours, *pandas.rank(names[number], requests[number]))

    def peer(number: int) -> object:
        return polars.rank(names[number % 32], requests[number % 32])

    def other(number: int) -> object:
        return pandas.rank(names[number % 32], requests[number % 32])

    ours_s, plain_s, polars_s, pandas_s = timed([cached, plain, peer, other], rounds)
    print(f"{'1 user x 1000 items, 49 outputs':34s}{'p50 ms':>10s}{'p99 ms':>10s}{'best ms':>10s}")
    rows = {"compiled plan, cached items": ours_s, "compiled plan, items come along": plain_s}
    for name, seconds in (rows | {"Polars eager, 1 thread": polars_s, "pandas": pandas_s}).items():
        print(f"{name:34s}" + "".join(f"{1e3 * value:10.3f}" for value in np.percentile(seconds, [50, 99, 0])))
    engines = [of_engine(Engine(made)) for _ in range(2)]
    for call in engines:
        call(0)
    seconds = 0.2 if chosen.smoke else 2.0
    one, two = (requests_per_s(engines[:count], seconds) for count in (1, 2))
    print(f"one thread ranks {one:,.0f} requests/s, two of them on one cache {two:,.0f}")
    print_result(
        "featuregen_rank",
        summary(ours_s),
        summary(polars_s),
        "ms",
        p99_ms=round(1e3 * float(np.percentile(ours_s, 99)), 4),
        peer_p99_ms=round(1e3 * float(np.percentile(polars_s, 99)), 4),
        ratio_pandas=round(summary(pandas_s).median / summary(ours_s).median, 2),
        ratio_without_cache=round(summary(polars_s).median / summary(plain_s).median, 2),
        requests_per_s=round(one),
        two_threads=round(two / one, 2),
    )


if __name__ == "__main__":
    main()
