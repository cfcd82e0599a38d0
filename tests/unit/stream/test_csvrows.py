"""CSV lines become samples; a line or a field that does not fit is told apart from those that do."""

from pathlib import Path

import pyarrow as pa
import pytest

from kuberec_api.source import Csv, KafkaFormat, OnBadRecord
from kuberec_api.source import FilesSource as FilesSpec
from kuberec_runtime.stream.decode import Decoder
from kuberec_runtime.stream.files import FileSource
from kuberec_runtime.stream.listing import starts_of
from kuberec_runtime.stream.source import BadRecordError
from kuberec_runtime.stream.tabular import ColumnError, DecodeError
from kuberec_runtime.stream.units import list_units

SCHEMA = pa.schema(
    [
        ("user.name", pa.string()),
        ("user.age", pa.int64()),
        ("user.tags", pa.list_(pa.string())),
        ("user.pref", pa.map_(pa.string(), pa.float64())),
        ("user.vectors", pa.list_(pa.list_(pa.float64()))),
        ("now", pa.int64()),
        ("label.click", pa.float32()),
    ]
)
COLUMNS = ["label.click", "now", "unread", "user.name", "user.age", "user.tags", "user.pref", "user.vectors"]
LINE = b'1,5,x,"a,b",7,t1|t2,k:0.5|q:2,1;2|3'


def decoder() -> Decoder:
    return Decoder(SCHEMA, KafkaFormat.CSV, Csv(columns=COLUMNS))


def test_a_line_has_texts_numbers_lists_and_maps() -> None:
    assert decoder().one(LINE).to_pylist() == [
        {
            "user.name": "a,b",
            "user.age": 7,
            "user.tags": ["t1", "t2"],
            "user.pref": [("k", 0.5), ("q", 2.0)],
            "user.vectors": [[1.0, 2.0], [3.0]],
            "now": 5,
            "label.click": 1.0,
        }
    ]


def test_nothing_between_separators_is_null() -> None:
    (row,) = decoder().one(b"0,5,,,,,,").to_pylist()
    assert {name for name, value in row.items() if value is None} == set(SCHEMA.names) - {"now", "label.click"}


def test_messages_may_hold_several_lines() -> None:
    table, counts = decoder().many([LINE, LINE + b"\n" + LINE + b"\n", LINE + b"\r\n"])
    assert counts == [1, 2, 1]
    assert table.num_rows == 4


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"1,5", "2 fields, expected 8"),
        (b"", "empty"),
        (b",5,x,a,7,,,", r"label\.click"),
        (b"1,5,x,a,old,,,", r"user\.age"),
        (b"1,5,x,a,7,,k,", r"user\.pref.*key:value"),
        (b"1,5,x,\xff,7,,,", "UTF8"),
        (LINE + b"\n\n" + LINE, "empty line"),
    ],
)
def test_a_message_that_does_not_fit_says_why(message: bytes, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        decoder().one(message)


def test_a_type_without_a_form_in_csv_is_refused() -> None:
    schema = pa.schema([("user.x", pa.map_(pa.string(), pa.map_(pa.string(), pa.float64())))])
    with pytest.raises(ColumnError, match=r"user\.x.*CSV has no form"):
        Decoder(schema, KafkaFormat.CSV, Csv(columns=["user.x"]))


def test_bad_lines_of_a_file_are_passed_over_one_by_one_or_named(tmp_path: Path) -> None:
    lines = [b"now,label.click,user.age", b"0,1,1", b"1,1", b"2,0,old", b"3,,3", b"4,1,4", b"5,0,5"]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    spec = FilesSpec(uri=f"file://{tmp_path}/a.csv", format="Csv", on_bad_record="Skip")
    starts = starts_of([list_units(spec)], [])
    source = FileSource(spec, SCHEMA, starts, 2, in_order=True)
    seen, skipped = [], 0
    while not source.finished:
        if (batch := source.poll(0.2)) is not None:
            seen += batch.table.column("now").to_pylist()
            skipped += batch.skipped.get(0, 0)
    assert seen == [0, 4, 5]
    assert skipped == 3
    assert [text.partition(" row ")[2][:2] for text in source.bad_records()] == ["1:", "2:", "3:"]
    strict = FileSource(spec.model_copy(update={"on_bad_record": OnBadRecord.FAIL}), SCHEMA, starts, 2)
    with pytest.raises(BadRecordError, match=r"a\.csv#0\+59 row 1: 2 fields, expected 3"):
        while not strict.finished:
            strict.poll(0.2)
