import numpy as np

from kuberec_runtime.table.index import Index, erase_rows, find_rows, insert_rows


def insert(index: Index, keys: np.ndarray, first: int, names: np.ndarray) -> np.ndarray:
    out = np.empty(keys.size, np.int64)
    find_rows(index.table, index.numbers, index.base, index.size, keys, out)
    at, made, ends, fresh = 0, 0, np.array([first, -1]), np.empty(keys.size, np.int64)
    while True:
        at, made = insert_rows(
            index.table, index.numbers, index.base, index.size, index.count, index.erased, index.limit, keys, out, at,
            ends, names, fresh, made,
        )  # fmt: skip
        if at == keys.size:
            return out
        index.grow(int(keys[at]))


def erase(index: Index, keys: np.ndarray, names: np.ndarray) -> int:
    ends, dirty = np.array([names.size, -1]), np.zeros(names.size, np.uint8)
    arguments = (index.table, index.numbers, index.base, index.size, index.count, index.erased, keys)
    return int(erase_rows(*arguments, ends, names, dirty))


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


def test_keys_come_and_go_for_long_without_the_index_growing() -> None:
    rng = np.random.default_rng(3)
    index, names = Index(64 << 20), np.empty(2_000_000, np.int64)
    live = rng.integers(0, 2**63 - 1, 40_000)
    rows = insert(index, live, 0, names)
    size, next_row = index.memory_bytes, live.size
    for _ in range(40):
        leaving = rng.permutation(live.size)[:20_000]
        assert erase(index, live[leaving], names) == 20_000
        assert (find(index, live[leaving]) == -1).all()
        live[leaving] = rng.integers(0, 2**63 - 1, 20_000)
        rows[leaving] = insert(index, live[leaving], next_row, names)
        next_row += 20_000
        assert np.array_equal(find(index, live), rows)
        assert (index.count + index.erased <= index.limit).all()
    assert int(index.count.sum()) == live.size
    assert index.memory_bytes <= 1.6 * size
    assert (find(index, rng.integers(0, 2**63 - 1, 10_000)) == -1).all()


def test_erasing_a_key_that_is_not_there_changes_nothing() -> None:
    index, names = Index(64 << 20), np.empty(10, np.int64)
    insert(index, np.array([5, 6]), 0, names)
    assert erase(index, np.array([7, 5, 5]), names) == 1
    assert find(index, np.array([5, 6, 7])).tolist() == [-1, 1, -1]
