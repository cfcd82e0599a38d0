import numpy as np
import pytest

from kuberec_api.model import Initializer, InitializerKind, SparseOptimizer
from kuberec_runtime.table import Table
from kuberec_runtime.table.initial import initial_rows

NORMAL = Initializer(kind=InitializerKind.NORMAL, stddev=0.5)
NORMAL_GOLDEN = "bb4f5327 bcc7bc05 bb1be5d5 bb32334c bc23f675 bc073187 bc100169 3c2ee0d6 3c20a7ea".split()
UNIFORM_GOLDEN = "3cf70976 3c3bd3e0 bd03c08e bd241ccb bd00a73b bb0adf80".split()


def test_a_row_is_the_same_whoever_creates_it_and_in_whatever_order() -> None:
    keys = np.random.default_rng(0).integers(0, 2**62, 1000)
    one, other = (Table(17, SparseOptimizer(), NORMAL, 3) for _ in range(2))
    a = one.pull(keys)
    other.pull(keys[500:])
    b = other.pull(keys[::-1].copy())[::-1]
    assert np.array_equal(a.view(np.uint32), np.ascontiguousarray(b).view(np.uint32))
    assert np.array_equal(a, initial_rows(keys, 17, NORMAL, 3))


def test_the_bits_never_change_between_releases() -> None:
    """Rows that were never pushed are in no checkpoint: other bits would be another model."""
    keys = np.array([0, 1, 2**62 + 12345])
    normal = initial_rows(keys, 3, Initializer(), 42).view(np.uint32)
    uniform = initial_rows(keys, 2, Initializer(kind=InitializerKind.UNIFORM, stddev=0.05), 42).view(np.uint32)
    assert [f"{x:08x}" for x in normal.reshape(-1)] == NORMAL_GOLDEN
    assert [f"{x:08x}" for x in uniform.reshape(-1)] == UNIFORM_GOLDEN


def test_normal_values_have_the_asked_moments() -> None:
    x = initial_rows(np.arange(20_000), 16, NORMAL, 1).astype(np.float64)
    assert abs(x.mean()) < 0.003
    assert abs(x.std() - 0.5) < 0.003
    z = x / 0.5
    assert abs((z**4).mean() - 2.85) < 0.03  # Irwin-Hall of 8: 3 - 6 / (5 * 8)
    assert abs(z).max() < 4.9
    assert abs(np.corrcoef(x.T) - np.eye(16)).max() < 0.03
    assert abs(np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1]) < 0.03


def test_uniform_values_fill_their_range_evenly() -> None:
    x = initial_rows(np.arange(50_000), 4, Initializer(kind=InitializerKind.UNIFORM, stddev=0.25), 1)
    assert x.min() >= -0.25 and x.max() < 0.25
    counts, _ = np.histogram(x, bins=20, range=(-0.25, 0.25))
    assert abs(counts / x.size - 0.05).max() < 0.002


@pytest.mark.parametrize("kind", [InitializerKind.NORMAL, InitializerKind.UNIFORM])
def test_seeds_and_keys_give_different_rows(kind: InitializerKind) -> None:
    initializer = Initializer(kind=kind, stddev=1.0)
    rows = {seed: initial_rows(np.arange(1000), 8, initializer, seed) for seed in (0, 1, -1, 2**63)}
    distinct = np.unique(np.concatenate(list(rows.values())), axis=0)
    assert distinct.shape[0] == 4000


def test_zeros_are_zeros() -> None:
    assert not initial_rows(np.arange(10), 8, Initializer(kind=InitializerKind.ZEROS), 1).any()
