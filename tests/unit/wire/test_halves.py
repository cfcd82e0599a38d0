import ml_dtypes
import numpy as np
import pytest

from kuberec_api.training import RowType
from kuberec_runtime.wire.halves import DTYPE, decode, encode

HALVES = [RowType.BFLOAT16, RowType.FLOAT16]


def floats(seed: int = 0) -> np.ndarray:
    """Random bits (all exponents, both signs, NaN), and every tie and its neighbours."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 32, 400_000, np.uint32)
    tops = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    ties = np.concatenate([tops + np.uint32(low) for low in (0, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    return np.concatenate([bits, ties, halves, halves + np.uint32(0x1000), halves - np.uint32(1)]).view(np.float32)


def encoded(rows: np.ndarray, dtype: RowType) -> np.ndarray:
    out = np.empty(rows.shape, DTYPE[dtype])
    encode(rows, dtype, out)
    return out.view(np.uint16)


@pytest.mark.parametrize("dtype", HALVES)
def test_values_are_rounded_to_the_nearest_even_bit_for_bit(dtype: RowType) -> None:
    rows = floats().reshape(-1, 4)
    peer = ml_dtypes.bfloat16 if dtype is RowType.BFLOAT16 else np.float16
    number = ~np.isnan(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = rows.astype(peer).view(np.uint16)
    assert np.array_equal(encoded(rows, dtype)[number], expected[number])


@pytest.mark.parametrize("dtype", HALVES)
def test_a_nan_stays_a_nan_and_keeps_its_sign(dtype: RowType) -> None:
    nans = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0x7FFF8000], np.uint32).view(
        np.float32
    )
    back = decode(encoded(nans.reshape(-1, 1), dtype).view(DTYPE[dtype]), dtype)
    assert np.isnan(back).all()
    assert np.array_equal(np.signbit(back[:, 0]), np.signbit(nans))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_half_comes_back_as_it_was(dtype: RowType) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 8)
    back = decode(halves.view(DTYPE[dtype]), dtype)
    assert back.dtype == np.float32
    number = ~np.isnan(back)
    assert np.array_equal(encoded(back, dtype)[number], halves[number])


def test_float16_ends_at_65504_and_bfloat16_does_not() -> None:
    rows = np.array([[65504.0, 65520.0, -1e6, 1e-9]], np.float32)
    half = decode(encoded(rows, RowType.FLOAT16).view(np.float16), RowType.FLOAT16)
    assert half.tolist() == [[65504.0, np.inf, -np.inf, 0.0]]
    wide = decode(encoded(rows, RowType.BFLOAT16), RowType.BFLOAT16)
    assert np.allclose(wide, rows, rtol=2**-8)


def test_float32_is_not_copied() -> None:
    rows = np.ones((3, 2), np.float32)
    assert decode(rows, RowType.FLOAT32) is rows
