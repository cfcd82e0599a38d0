"""Random programs on a table and on a dict must leave the same bits."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kuberec_api.model import Initializer, InitializerKind, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table import Rows, Table
from kuberec_runtime.table.eviction import Verdict
from tests.unit.table.reference import ReferenceTable

KEYS = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**63 - 1)), max_size=30, unique=True)
CONSUMER = st.sampled_from(["checkpoint", "publication"])
STEP = st.one_of(
    st.tuples(st.just("pull"), KEYS),
    st.tuples(st.just("push"), KEYS, st.integers(0, 2**32 - 1)),
    st.tuples(st.just("take"), CONSUMER, st.booleans()),
    st.tuples(st.just("redirty"), CONSUMER, KEYS),
    st.tuples(st.just("mark all"), CONSUMER),
    st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("sweep"), st.integers(1, 2**31), st.integers(1, 50)),
    st.tuples(
        st.just("restore last"),
    ),
)
OPTIMIZERS = {
    SparseOptimizerKind.ADAM: st.fixed_dictionaries(
        {"learning_rate": st.sampled_from([0.001, 0.3]), "epsilon": st.sampled_from([1e-8, 0.1])},
        optional={
            "beta1": st.sampled_from([0.0, 0.5, 0.999999]) | st.floats(0, 0.999999),
            "beta2": st.sampled_from([0.0, 0.9, 0.999999]) | st.floats(0, 0.999999),
        },
    ),
    SparseOptimizerKind.FTRL: st.fixed_dictionaries(
        {"learning_rate": st.sampled_from([0.05, 3.0]), "epsilon": st.sampled_from([1e-8, 1.0])},
        optional={"l1": st.sampled_from([0.0, 1e-3, 0.5, 1e6]), "l2": st.sampled_from([0.0, 1e-3, 0.5, 1e6])},
    ),
}


def bits(rows: np.ndarray) -> np.ndarray:
    return rows.view(np.uint32)


@pytest.mark.parametrize("scalar", [True, False], ids=["scalar", "vector"])
@pytest.mark.parametrize("kind", list(SparseOptimizerKind))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    width=st.sampled_from([1, 3, 8, 13, 16, 17, 30, 33]),
    program=st.lists(STEP, max_size=15),
    initializer=st.sampled_from(list(InitializerKind)),
    data=st.data(),
)
def test_a_table_and_a_dict_hold_the_same_bits(
    kind: SparseOptimizerKind,
    scalar: bool,
    width: int,
    program: list[tuple],
    initializer: InitializerKind,
    data: st.DataObject,
) -> None:
    chosen = data.draw(OPTIMIZERS.get(kind, st.just({})))
    made = (width, SparseOptimizer(kind=kind, **chosen), Initializer(kind=initializer), 5)
    table, oracle = Table(*made, scalar=scalar), ReferenceTable(*made)
    rng = np.random.default_rng(0)
    last: Rows | None = None
    for step in program:
        match step:
            case ("pull", keys):
                got = table.pull(np.array(keys, np.int64))
                assert np.array_equal(bits(got), bits(oracle.pull(keys)))
            case ("push", keys, now):
                grads = rng.standard_normal((len(keys), width)).astype(np.float32)
                table.push(np.array(keys, np.int64), grads, now=now)
                oracle.push(keys, grads, now)
            case ("take", consumer, full):
                last = table.take_dirty(consumer, full)
                expected, removed = oracle.take(consumer, full)
                assert set(last.keys.tolist()) == set(expected) and last.keys.size == len(expected)
                assert last.removed.tolist() == sorted(removed)
                for key, raw in zip(last.keys.tolist(), last.raw, strict=True):
                    assert np.array_equal(bits(raw), bits(expected[key]))
            case ("redirty", consumer, keys):
                table.redirty(consumer, np.array(keys, np.int64))
                oracle.redirty(consumer, keys)
            case ("remove", keys):
                assert table.remove(np.array(keys, np.int64)) == len(set(keys) & set(oracle.rows))
                oracle.remove(keys)
            case ("sweep", idle, slice_):
                at, gone = table.sweep(0, slice_, Verdict(idle_s=idle))
                while at:
                    at, more = table.sweep(at, slice_, Verdict(idle_s=idle))
                    gone += more
                doomed = oracle.idle(idle)
                oracle.remove(doomed)
                assert gone == len(doomed)
            case ("mark all", consumer):
                table.mark_all_dirty(consumer)
                oracle.dirty[consumer] = set(oracle.rows)
            case ("restore last",) if last is not None:
                table.restore(last.keys, last.raw)
                for key, raw in zip(last.keys.tolist(), last.raw, strict=True):
                    oracle.rows[key] = raw.copy()
                    oracle.clock = max(oracle.clock, int(raw.view(np.uint32)[-1]))
        assert len(table) == len(oracle.rows)
        assert {c: table.dirty(c) for c in oracle.dirty} == {c: len(keys) for c, keys in oracle.dirty.items()}
    final = table.take_dirty("checkpoint", full=True)
    for key, raw in zip(final.keys.tolist(), final.raw, strict=True):
        assert np.array_equal(bits(raw), bits(oracle.rows[key]))
