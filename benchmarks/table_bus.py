"""Row kernels against the memory bus: a gather and an Adagrad push of random rows beside a plain copy, one thread each.

The peer copies as many bytes as the kernel must move: for a gather the weights, read and written; for a push half of
(row + gradient read, row written), since a copy moves each of its bytes twice. Row numbers are known, rows lie anywhere
in a table far larger than the caches, and every call takes other ones. Gates: gather at least 0.6, push at least 0.7 of
the copy's bandwidth. `pull` and `push` are whole calls of a table, with the search for the keys; `pull_by_two` is two
threads that pull at once, and `threads` how much more they get done than one.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.measure import in_turns, options, print_result
from benchmarks.table_step import DIM, filled
from kuberec_api.model import SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table.arena import lines
from kuberec_runtime.table.kernels import gather

TURNS = 8


def main() -> None:
    """Prints the table and the line."""
    chosen = options(__doc__ or "")
    rows = 200_000 if chosen.smoke else 8_000_000 if chosen.full else 3_000_000
    n = 50_000 if chosen.smoke else 300_000
    seconds = 2.0 if chosen.smoke else 60.0 if chosen.full else 20.0
    table = filled(rows, SparseOptimizer(kind=SparseOptimizerKind.ADAGRAD, learning_rate=0.05))
    slab, layout, rng = table._slab, table.layout, np.random.default_rng(3)
    picks = [rng.permutation(rows)[:n] for _ in range(TURNS)]
    out, grads = lines(np.float32, n, DIM), rng.standard_normal((n, DIM)).astype(np.float32)
    turn = 0

    def pick() -> np.ndarray:
        nonlocal turn
        turn += 1
        return picks[turn % TURNS]

    def copies(size: int):  # type: ignore[no-untyped-def]
        source, target = (np.ones(TURNS * size, np.uint8) for _ in range(2))
        places = [slice(i * size, (i + 1) * size) for i in range(TURNS)]

        def copy() -> None:
            nonlocal turn
            turn += 1
            np.copyto(target[places[turn % TURNS]], source[places[turn % TURNS]])

        return copy

    others = lines(np.float32, n, DIM)
    threads = ThreadPoolExecutor(2)

    def pull_by_two() -> None:
        list(threads.map(lambda keys, rows: table.pull(keys, out=rows), (pick(), pick()), (out, others)))

    def step() -> None:
        table._step(
            table._mode, slab.rows, slab.tails, slab.bits, slab.dirty, pick(), grads.reshape(-1), n,
            layout.step_shape, np.uint32(1), *table._constants,
        )  # fmt: skip

    weights, row = 4 * DIM, 4 * layout.stride
    push_bytes = (2 * row + weights) // 2
    calls = {
        "copy_for_gather": copies(n * weights),
        "gather": lambda: gather(table._mode, slab.rows, pick(), n, layout.weights_shape, out.reshape(-1)),
        "copy_for_push": copies(n * push_bytes),
        "push_rows": step,
        "pull": lambda: table.pull(pick(), out=out),
        "pull_by_two": pull_by_two,
        "push": lambda: table.push(pick(), grads, now=1),
    }
    timings = in_turns(calls, seconds)
    for name, timing in timings.items():
        rows_each = 2 * n if name == "pull_by_two" else n
        rate = f"{rows_each / timing.median / 1e6:7.1f} M rows/s"
        took = f"{timing.median * 1e3:8.3f} ms, best {timing.best * 1e3:8.3f}"
        print(f"{name:16s} {took}  {rate}  spread {timing.spread:.0%}")

    def share(ours: str, peer: str) -> tuple[float, float]:
        a, b = timings[ours], timings[peer]
        return round(b.median / a.median, 2), round(b.best / a.best, 2)

    gathered, pushed = share("gather", "copy_for_gather"), share("push_rows", "copy_for_push")
    print_result(
        "table_bus",
        timings["push_rows"],
        timings["copy_for_push"],
        "ms",
        gate={"gather": 0.6, "push": 0.7},
        gather=gathered[0],
        push=pushed[0],
        gather_of_best=gathered[1],
        push_of_best=pushed[1],
        pull=share("pull", "copy_for_gather")[0],
        threads=round(2 * timings["pull"].median / timings["pull_by_two"].median, 2),
        push_with_search=share("push", "copy_for_push")[0],
        copy_gb_s=round(2 * n * push_bytes / timings["copy_for_push"].median / 1e9, 1),
        rows=rows,
        bytes_per_row=row,
    )


if __name__ == "__main__":
    main()
