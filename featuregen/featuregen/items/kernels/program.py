"""The compiled program of the item cache: runs a table of steps, without the GIL.

Like `featuregen.kernels.program` it has one signature, and a cache on disk.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featuregen.compiled import compile_program
from featuregen.items.kernels.combo import combo
from featuregen.items.kernels.events import count_events, encode_events
from featuregen.items.kernels.maps import lookup, match
from featuregen.items.kernels.overlap import overlap
from featuregen.items.kernels.records import (
    copy,
    link,
    load,
    load_id,
    load_ids,
    load_listed,
    load_number,
    load_text,
    load_texts,
    measure_text,
    measure_texts,
    store,
    store_id,
    store_lists,
    store_spans,
)
from featuregen.items.kernels.texts import encode, find, follow, rehash
from featuregen.items.table import (
    COMBO,
    COPY,
    COUNT,
    ENCODE,
    ENCODE_EVENTS,
    FIND,
    FOLLOW,
    LINK,
    LOAD,
    LOAD_ID,
    LOAD_IDS,
    LOAD_LISTED,
    LOAD_NUMBER,
    LOAD_TEXT,
    LOAD_TEXTS,
    LOOKUP,
    MATCH,
    MEASURE_TEXT,
    MEASURE_TEXTS,
    OVERLAP,
    REHASH,
    STEP_WIDTH,
    STORE,
    STORE_ID,
    STORE_LISTS,
    STORE_SPANS,
    T_KIND,
)
from featuregen.kernels.memory import get
from featuregen.kernels.sources import SOURCES

_HERE = Path(__file__).parent
_SOURCES = [*SOURCES, *sorted([*_HERE.glob("*.py"), *(_HERE.parent / f"{name}.py" for name in ("layout", "table"))])]


def _run_all(steps: int, count: int, dictionaries: int, user: int) -> None:
    for index in range(count):
        step = steps + 8 * STEP_WIDTH * index
        kind = get(step, T_KIND)
        if kind == LOAD:
            load(step)
        elif kind == LOAD_ID:
            load_id(step)
        elif kind == COMBO:
            combo(step, dictionaries, user)
        elif kind == LOOKUP:
            lookup(step, dictionaries, user)
        elif kind == MATCH:
            match(step, dictionaries, user)
        elif kind == OVERLAP:
            overlap(step, dictionaries, user)
        elif kind == LOAD_LISTED:
            load_listed(step)
        elif kind == LOAD_IDS:
            load_ids(step)
        elif kind == LOAD_NUMBER:
            load_number(step)
        elif kind == COUNT:
            count_events(step, user)
        elif kind == ENCODE_EVENTS:
            encode_events(step, dictionaries, user)
        elif kind == FIND:
            find(step, dictionaries)
        elif kind == FOLLOW:
            follow(step)
        elif kind == COPY:
            copy(step)
        elif kind == MEASURE_TEXT:
            measure_text(step, dictionaries)
        elif kind == LOAD_TEXT:
            load_text(step, dictionaries)
        elif kind == MEASURE_TEXTS:
            measure_texts(step, dictionaries)
        elif kind == LOAD_TEXTS:
            load_texts(step, dictionaries)
        elif kind == ENCODE:
            encode(step, dictionaries)
        elif kind == REHASH:
            rehash(step, dictionaries)
        elif kind == STORE:
            store(step)
        elif kind == STORE_SPANS:
            store_spans(step)
        elif kind == STORE_LISTS:
            store_lists(step)
        elif kind == STORE_ID:
            store_id(step)
        elif kind == LINK:
            link(step)


_run = compile_program(_run_all, "void(int64, int64, int64, int64)", _SOURCES)


def address_of(array: NDArray[Any]) -> int:
    """Returns where an array begins; `array.ctypes` makes an object for that."""
    return int(array.__array_interface__["data"][0])


def run_steps(steps: NDArray[np.int64], dictionaries: NDArray[np.int64], user: int = 0) -> None:
    """Runs steps.

    Args:
        steps: int64[s, STEP_WIDTH].
        dictionaries: int64[d, DICTIONARY_WIDTH].
        user: address of the addresses of exported Arrow arrays; 0 if no step reads them.
    """
    _run(address_of(steps), len(steps), address_of(dictionaries), user)
