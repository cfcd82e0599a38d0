"""Rows as bytes, commands as bytes, versions and descriptions as text: pure functions of the tier."""

import ml_dtypes
import numpy as np
import pytest

from kuberec_api.training import RowType
from kuberec_runtime.publish.errors import TierCorrupt, TierError
from kuberec_runtime.publish.publication import (
    Description,
    Publication,
    TableMeta,
    Version,
    pack_changed,
    pack_dense,
    row_namespace,
    unpack_delta,
    unpack_dense,
)
from kuberec_runtime.publish.resp import (
    _array_header,
    _scan_bulks,
    encode_mget,
    encode_mset,
    encode_unlink,
    parse_address,
)
from kuberec_runtime.publish.rowtype import decode_rows, encode_rows

ABOUT = Description(
    Version(3, 42), "ab" * 32, "farm64", RowType.BFLOAT16, {"cate": TableMeta(0, 9, True, 5)}, ("click",), 7, 8
)


def test_bfloat16_rounds_as_ml_dtypes_does() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, (10_000, 4), dtype=np.uint32).view(np.float32)
    edges = np.array([[0.0, -0.0, np.inf, -np.inf], [np.nan, 1.0, 3.3895314e38, 1e-40]], np.float32)
    rows = np.concatenate([bits, edges])
    with np.errstate(all="ignore"):
        expected = rows.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(decode_rows(encode_rows(rows, RowType.BFLOAT16), RowType.BFLOAT16), expected, equal_nan=True)


@pytest.mark.parametrize("dtype", list(RowType))
def test_small_whole_numbers_survive_every_row_type(dtype: RowType) -> None:
    rows = np.arange(-60, 60, dtype=np.float32).reshape(10, 12)
    assert np.array_equal(decode_rows(encode_rows(rows, dtype), dtype), rows)
    assert decode_rows(encode_rows(rows[:0], dtype), dtype).shape == (0, 12)


def test_commands_are_resp() -> None:
    ids = np.array([1, 2**40], np.int64)
    one, two = (1).to_bytes(8, "little"), (2**40).to_bytes(8, "little")
    assert encode_unlink(b"p/", ids[:1]) == b"*2\r\n$6\r\nUNLINK\r\n$10\r\np/" + one + b"\r\n"
    assert encode_mget([(b"p/", ids)]) == b"*3\r\n$4\r\nMGET\r\n$10\r\np/" + one + b"\r\n$10\r\np/" + two + b"\r\n"
    values = np.array([[7, 8], [9, 10]], np.uint8)
    assert encode_mset(b"p/", ids, values) == (
        b"*5\r\n$4\r\nMSET\r\n$10\r\np/" + one + b"\r\n$2\r\n\x07\x08\r\n$10\r\np/" + two + b"\r\n$2\r\n\x09\x0a\r\n"
    )


def test_a_reply_may_be_cut_anywhere() -> None:
    reply = b"*4\r\n$2\r\n\r\n\r\n$-1\r\n$0\r\n\r\n$12\r\n0123456789ab\r\n"
    for cut in range(1, len(reply) + 1):
        data = np.frombuffer(reply, np.uint8)
        starts, sizes = np.full(4, -9), np.full(4, -9)
        position = _array_header(data, cut, 4)
        assert position in (0, 4)
        done, position = _scan_bulks(data, 4, cut, starts, sizes, 0) if position else (0, 4)
        done, position = _scan_bulks(data, position, len(reply), starts, sizes, done)
        assert done == 4 and position == len(reply)
        assert sizes.tolist() == [2, -1, 0, 12]
        assert reply[starts[3] : starts[3] + 12] == b"0123456789ab"


def test_versions_are_ordered_by_attempt_then_epoch() -> None:
    assert Version.parse("3.42") == Version(3, 42) < Version.parse("3.100") < Version.parse("10.1")
    for text in ("3", "3.x", "", "-1.2", "a.b", "1.2.3"):
        with pytest.raises(ValueError, match="is not a version"):
            Version.parse(text)


def test_a_description_survives_its_json_and_its_weights() -> None:
    assert Description.from_json(ABOUT.to_json()) == ABOUT
    dense = unpack_dense(pack_dense(Publication("ns", ABOUT, {"a/kernel": np.ones((2, 3), np.float32)})))
    assert dense.description == ABOUT
    assert dense.weights["a/kernel"].tolist() == np.ones((2, 3)).tolist()


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x08" + bytes(7) + b"garbage!", b"\xff" * 16])
def test_weights_that_are_not_a_version_are_refused(data: bytes) -> None:
    with pytest.raises(TierCorrupt):
        unpack_dense(data)


def test_changed_ids_survive_a_delta() -> None:
    fields = {k.encode(): v for k, v in pack_changed({"cate": np.array([5, 6], np.int64)}).items()}
    delta = unpack_delta(b"1-0", {b"version": b"1.2", b"previous": b"1.1", **fields})
    assert delta.changed is not None and delta.changed["cate"].tolist() == [5, 6]
    assert unpack_delta(b"1-0", {b"version": b"1.2", b"all": b"1"}).changed is None
    with pytest.raises(TierCorrupt):
        unpack_delta(b"1-0", {})


def test_whatever_decides_a_rows_bytes_is_part_of_the_namespace() -> None:
    base = row_namespace("default", "feed", "a" * 64, {"cate": 9}, RowType.FLOAT32)
    assert base.startswith("kr:default/feed/aaaaaaaa-")
    others = {
        row_namespace("default", "feed", "b" * 64, {"cate": 9}, RowType.FLOAT32),
        row_namespace("default", "feed", "a" * 64, {"cate": 8}, RowType.FLOAT32),
        row_namespace("default", "feed", "a" * 64, {"cate": 9}, RowType.FLOAT16),
    }
    assert len({base, *others}) == 4


def test_urls_are_checked() -> None:
    assert parse_address("redis://h:7/3").database == 3
    assert parse_address("rediss://h").tls and parse_address("unix:///a/b?db=2").path == "/a/b"
    for url in ("http://h", "redis://", "redis://h:x", "redis://h/x", "redis://:secret@h/0"):
        with pytest.raises(TierError) as refused:
            parse_address(url)
        assert "secret" not in str(refused.value)
