"""Files of samples are a topic that ends: every row is applied once, whatever is killed and whatever appears later."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kuberec_devcluster.services import S3, Redis
from tests.component.training import Training, write_files

SAMPLES = 3000
names = count()
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def training(redis_server: Redis, tmp_path: Path) -> Iterator[Training]:
    training = Training(tmp_path, "none:1", redis_server.url, f"files-{next(names)}")
    write_files(tmp_path / "day=01", SAMPLES)
    training.set("RecTraining", "spec.source", {"files": {"uri": f"file://{tmp_path}/day=01"}})
    yield training
    training.stop()


def assert_every_row_once(training: Training, samples: int = SAMPLES) -> None:
    manifest = training.manifest()
    assert manifest is not None
    assert manifest.samples == samples
    assert all(o.next == o.end == 1 for o in manifest.offsets)
    for offset in manifest.offsets:
        name, _, part = offset.topic.removeprefix("file://").partition("#")
        first, rows = (int(x) for x in part.split("+"))
        metadata = pq.read_metadata(name)
        expected = sum(metadata.row_group(first + i).num_rows for i in range(rows))
        assert manifest.samples_by_partition[offset.partition] == expected


@pytest.mark.parametrize(
    "point", ["source.listed", "source.kept", "worker.polled@3", "worker.push-sent@4", "driver.committed"]
)
def test_killed_anywhere_every_row_is_applied_once(training: Training, point: str) -> None:
    training.start(crash_at=point)
    assert training.wait() == -9, training.log()[-3000:]
    if point != "source.listed":
        write_files(training.folder / "day=01" / "appeared-later", 100, seed=2)
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert_every_row_once(training)
    progress = training.status().progress
    assert progress is not None
    assert not progress.lag  # None if the last commit was the end already


def test_another_uri_adds_its_files_behind_those_of_the_days_before(training: Training) -> None:
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    write_files(training.folder / "day=02", 1000, seed=1)
    training.set("RecTraining", "spec.source.files.uri", f"file://{training.folder}/day=0[12]/*.parquet")
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert_every_row_once(training, SAMPLES + 1000)


def test_a_file_that_changed_before_it_was_read_is_named(training: Training) -> None:
    training.start(crash_at="source.kept")
    assert training.wait() == -9, training.log()[-3000:]
    changed = sorted((training.folder / "day=01").glob("*.parquet"))[-1]
    pq.write_table(pq.read_table(changed).slice(0, 10), changed)
    training.start()
    assert training.wait() == 65, training.log()[-3000:]
    outcome = training.status().outcome
    assert outcome is not None
    assert outcome.reason == "SourceFileChanged"
    assert changed.name in outcome.message


def test_rows_that_do_not_fit_are_named_or_passed_over_and_counted(training: Training) -> None:
    path = sorted((training.folder / "day=01").glob("*.parquet"))[0]
    table = pq.read_table(path)
    at = table.schema.get_field_index("label.click")
    labels = table.column(at).to_pylist()
    labels[5] = labels[450] = None
    nullable = table.schema.field(at).with_nullable(True)
    pq.write_table(table.set_column(at, nullable, pa.array(labels, nullable.type)), path, row_group_size=200)
    training.start()
    assert training.wait() == 65, training.log()[-3000:]
    outcome = training.status().outcome
    assert outcome is not None
    assert f"{path.name}#0+4 row 5: 'label.click' is null" in outcome.message
    training.set("RecTraining", "spec.source.files.onBadRecord", "Skip")
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    manifest = training.manifest()
    assert manifest is not None
    assert manifest.samples == SAMPLES - 2
    assert sum(manifest.skipped_by_partition.values()) == 2


def test_files_are_read_from_s3_with_credentials_of_their_own(training: Training) -> None:
    with S3() as s3:
        bucket = s3.folder / "buckets" / s3.bucket
        write_files(bucket / "samples" / "day=03", 1000)
        training.set("RecTraining", "spec.source.files.uri", f"s3://{s3.bucket}/samples/*/*.parquet")
        training.start(env={f"KUBEREC_SOURCE_{k}": v for k, v in s3.aws_environment.items()})
        assert training.wait() == 0, training.log()[-3000:]
    manifest = training.manifest()
    assert manifest is not None
    assert manifest.samples == 1000
    assert manifest.offsets[0].topic.startswith(f"s3://{s3.bucket}/samples/day=03/part-00000.parquet#")
