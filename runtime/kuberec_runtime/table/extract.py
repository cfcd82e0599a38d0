"""Copies marked rows out of a table in parts that run at once: while a cut is copied, workers stand and cores idle.

Nothing is changed here: marks are cleared by the caller once the copy is made, so a failed one loses none.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.kernels import gather_raw, scan_live
from kuberec_runtime.table.marks import ROWS_IN_WORD, scan, words_of
from kuberec_runtime.table.room import Rooms
from kuberec_runtime.table.slab import Slab

MOST_PARTS = 4
PART_ROWS = 1 << 16
"""Fewer rows are not worth a thread."""
KEPT_SHARE, LEAST_KEPT = 0.125, 1 << 20
"""Memory of copies up to so much of the rows, or so many bytes, is kept for the next one."""

Scan = Callable[[int, int, I64], int]
"""Writes the numbers, from `start` on, of wanted rows between `start` and `stop` into an array; returns how many.

A start is a multiple of `ROWS_IN_WORD`."""


@dataclass(frozen=True)
class _Part:
    """Wanted rows of one range: `numbers` are relative to `start`, `at` is their place in the copy."""

    start: int
    numbers: I64
    at: int


def marked(words: I64, bit: int) -> Scan:
    """Wants rows with the bit set."""
    return lambda start, stop, out: int(scan(words[start // ROWS_IN_WORD :], stop - start, bit, out))


def live(keys: I64) -> Scan:
    """Wants rows that have a key."""
    return lambda start, stop, out: int(scan_live(keys[start:stop], stop - start, out))


def extract(mode: Any, slab: Slab, used: int, wanted: Scan, numbers: I64, rooms: Rooms) -> tuple[I64, F32]:
    """Copies wanted rows: their keys, int64 (n,), and float32 (n, stride), in order of row numbers.

    Args:
        mode: of the row kernels.
        slab: where rows are.
        used: rows to look at, from the first.
        wanted: says which rows.
        numbers: int64, scratch of at least `used + MOST_PARTS` elements.
        rooms: where the copy goes if it is at most `KEPT_SHARE` of all rows.
    """
    layout = slab.layout
    count = max(1, min(MOST_PARTS, len(os.sched_getaffinity(0)), used // PART_ROWS))
    step = words_of(used // count) * ROWS_IN_WORD
    starts = [k * step for k in range(count)]
    stops = [*starts[1:], used]

    # A scan writes one number too many, so every part has a slot of its own behind its range.
    def find(k: int) -> I64:
        room = numbers[starts[k] + k : stops[k] + k + 1]
        return room[: wanted(starts[k], stops[k], room)]

    with ThreadPoolExecutor(count) as threads:
        found = list(threads.map(find, range(count)))
        ends = np.cumsum([part.size for part in found]).tolist()
        parts = [_Part(s, part, end - part.size) for s, part, end in zip(starts, found, ends, strict=True)]
        most = max(LEAST_KEPT, int(KEPT_SHARE * used * layout.row_bytes))
        raw = rooms.rows.array(np.float32, (ends[-1], layout.stride), most)
        copied = rooms.keys.array(np.int64, (ends[-1],), most)

        def copy(part: _Part) -> None:
            n, here = part.numbers.size, slice(part.at, part.at + part.numbers.size)
            gather_raw(
                mode, slab.rows[part.start * layout.pitch :], slab.tails[part.start * layout.tail_pitch :],
                slab.keys[part.start :], part.numbers, n, layout.raw_shape, raw[here].reshape(-1), copied[here],
            )  # fmt: skip

        list(threads.map(copy, parts))
    return copied, raw
