import numpy as np

from kuberec_runtime.table.index import Index, find_rows, insert_rows


def insert(index: Index, keys: np.ndarray, first: int, names: np.ndarray) -> np.ndarray:
    out = np.empty(keys.size, np.int64)
    find_rows(index.table, index.numbers, index.base, index.size, keys, out)
    at, row = 0, first
    while True:
        at, row = insert_rows(
            index.table, index.numbers, index.base, index.size, index.count, index.limit, keys, out, at, row, names
        )
        if at == keys.size:
            return out
        index.grow(int(keys[at]))


def find(index: Index, keys: np.ndarray) -> np.ndarray:
    out = np.empty(keys.size, np.int64)
    find_rows(index.table, index.numbers, index.base, index.size, keys, out)
    return out


def test_every_key_is_found_through_every_growth_and_absent_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(0, 2**63 - 1, 120_000))
    rng.shuffle(keys)
    absent = np.setdiff1d(rng.integers(0, 2**63 - 1, 10_000), keys)
    index, names = Index(64 << 20), np.empty(keys.size, np.int64)
    for start in range(0, keys.size, 5000):
        insert(index, keys[start : start + 5000], start, names)
        assert (find(index, absent) == -1).all()
    assert np.array_equal(find(index, keys), np.arange(keys.size))
    assert np.array_equal(names, keys)
    assert int(index.count.sum()) == keys.size
    assert (index.count <= index.limit).all()


def test_a_key_given_twice_gets_one_row() -> None:
    index, names = Index(64 << 20), np.empty(10, np.int64)
    assert insert(index, np.array([9, 8, 9, 9, 8]), 0, names).tolist() == [0, 1, 0, 0, 1]


def test_zero_and_the_largest_key_are_ordinary_keys() -> None:
    index, names = Index(64 << 20), np.empty(10, np.int64)
    keys = np.array([0, 2**63 - 1, 1])
    assert find(index, keys).tolist() == [-1, -1, -1]
    insert(index, keys, 0, names)
    assert find(index, keys).tolist() == [0, 1, 2]


def test_a_negative_key_is_reported_by_position() -> None:
    index = Index(64 << 20)
    out = np.empty(3, np.int64)
    assert find_rows(index.table, index.numbers, index.base, index.size, np.array([1, 2, -3]), out) == -1 - 2


def test_growth_is_spread_so_that_no_insert_pays_for_all() -> None:
    index, names = Index(256 << 20), np.empty(300_000, np.int64)
    largest, before = 0, index.size.copy()
    for start in range(0, 300_000, 1000):
        insert(index, np.arange(start, start + 1000) * 7919, start, names)
        grown = index.size != before
        if start > 150_000:
            largest = max(largest, int(index.count[grown].sum()))
        before = index.size.copy()
    assert largest < 30_000
