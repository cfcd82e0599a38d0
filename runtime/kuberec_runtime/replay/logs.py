"""Where request logs are: Parquet files of a folder, a glob or a bucket, or a Kafka topic up to its present end.

Files are cut into parts that other processes can open by themselves; a topic is read here, message by message.
"""

import fnmatch
import glob
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, TopicPartition
from pyarrow import fs

from featuregen.replay.files import SnapshotFiles, open_file, read_batches
from featuregen.replay.snapshot import SnapshotError, read_message
from kuberec_api.source import KafkaSource
from kuberec_runtime.checkpoint.store import open_store
from kuberec_runtime.stream.ends import PLAIN, Settings, read_ends
from kuberec_runtime.stream.source import SourceUnavailableError
from kuberec_runtime.stream.topic import configuration

SUFFIX = ".parquet"
_WILDCARDS = "*?["
_CONSUME = 256
_POLL_S, _SILENCE_S = 0.2, 30.0


class NoLogError(ValueError):
    """There is no request log where one was asked for."""


@dataclass(frozen=True)
class Part:
    """A share of a log that can be read apart from the rest.

    Attributes:
        store: URI of the bucket's folder; empty for a file of this machine.
        name: key in that store, or path.
        row_groups: of the file; None means all.
        requests: how many there are; 0 if that takes reading the file.
    """

    store: str
    name: str
    row_groups: tuple[int, ...] | None = None
    requests: int = 0

    def __str__(self) -> str:
        return f"{self.store}/{self.name}" if self.store else self.name


@dataclass(frozen=True)
class Topic:
    """A Kafka topic, as `kafka://host:port,host:port/topic` names it."""

    bootstrap_servers: str
    name: str


def parse_topic(where: str) -> Topic:
    """Returns the topic of a `kafka://` URI.

    Raises:
        NoLogError: it does not name brokers and a topic.
    """
    brokers, _, name = where.removeprefix("kafka://").partition("/")
    if not brokers or not name or "/" in name:
        raise NoLogError(f"{where}: write kafka://host:port/topic")
    return Topic(brokers, name)


def find_parts(where: str, split: bool = False) -> list[Part]:
    """Returns the parts of a log of Parquet files, in the order of their names.

    Args:
        where: a file, a folder or a glob of this machine, or `s3://bucket/prefix` (also gs://, az://, file://), where a
            last component with wildcards is matched against the names below its folder.
        split: cut local files by their row groups, for several readers.

    Raises:
        NoLogError: there is no such file.
        SnapshotError: a local file is not a log.
        StoreError: the store does not answer.
    """
    if "://" in where:
        found = [Part(*place) for place in _stored(where)]
    else:
        found = [part for path in _local(where) for part in _cut(path, split)]
    if not found:
        raise NoLogError(f"{where}: no file *{SUFFIX} there")
    return found


def read_part(part: Part) -> Iterator[pa.RecordBatch]:
    """Yields the snapshots of a part.

    Raises:
        SnapshotError: it is not a log.
        StoreError: the store does not answer.
    """
    if part.store:
        source = pa.BufferReader(pa.py_buffer(open_store(part.store).get(part.name)))
        file = open_file(source)
    else:
        file = open_file(part.name)
    yield from read_batches(file, None if part.row_groups is None else list(part.row_groups))


def read_topic(topic: Topic, settings: Settings = PLAIN) -> Iterator[tuple[str, bytes, int, int]]:
    """Yields every message that the topic holds at the time of the call.

    Args:
        topic: what to read.
        settings: librdkafka's, for brokers that want credentials.

    Yields:
        Where it is, its bytes, and how many messages there have been and will be.

    Raises:
        SourceUnavailableError, TopicNotFoundError: the brokers or the topic are not there.
    """
    ends = read_ends(topic.bootstrap_servers, topic.name, settings=settings)
    left = {p: end.latest for p, end in ends.items() if end.latest > end.earliest}
    total, seen = sum(end.latest - end.earliest for end in ends.values()), 0
    source = KafkaSource(bootstrap_servers=topic.bootstrap_servers, topic=topic.name)
    consumer = Consumer({**configuration(source), **settings})
    try:
        consumer.assign([TopicPartition(topic.name, p, ends[p].earliest) for p in left])
        heard = time.monotonic()
        while left:
            messages = consumer.consume(_CONSUME, timeout=_POLL_S)  # waits for as many, or so long
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE_S:
                raise SourceUnavailableError(f"topic '{topic.name}': nothing came for {_SILENCE_S:g} s")
            for message in messages:
                partition, error = message.partition(), message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise SourceUnavailableError(f"topic '{topic.name}' partition {partition}: {error.str()}")
                offset = message.offset()
                if error is None and partition in left and offset < left[partition]:
                    seen += 1
                    yield f"partition {partition} offset {offset}", message.value() or b"", seen, total
                if partition in left and offset + (error is None) >= left[partition]:
                    del left[partition]
    finally:
        consumer.close()


def _local(where: str) -> list[Path]:
    path = Path(where)
    if path.is_dir():
        return sorted(path.rglob(f"*{SUFFIX}"))
    return [path] if path.exists() else sorted(Path(one) for one in glob.glob(where, recursive=True))


def _cut(path: Path, by_row_group: bool) -> list[Part]:
    about = open_file(str(path)).metadata
    if not by_row_group or about.num_row_groups < 2:
        return [Part("", str(path), None, about.num_rows)]
    return [Part("", str(path), (i,), about.row_group(i).num_rows) for i in range(about.num_row_groups)]


def _stored(where: str) -> list[tuple[str, str]]:
    parts = urlsplit(where)
    folder, pattern = where.rstrip("/"), f"*{SUFFIX}"
    if any(mark in parts.path for mark in _WILDCARDS):
        folder, _, pattern = where.rpartition("/")
    elif folder.endswith(SUFFIX):
        folder, _, pattern = folder.rpartition("/")
    if any(mark in folder for mark in _WILDCARDS):
        raise NoLogError(f"{where}: only the last component may have wildcards")
    keys = [listed.key for listed in open_store(folder).list("")]
    return [(folder, key) for key in sorted(keys) if fnmatch.fnmatch(key, pattern)]


def saving(messages: Iterable[tuple[str, bytes]], folder: Path) -> Iterator[tuple[str, bytes]]:
    """Passes messages on and keeps their snapshots as Parquet; those of another plan in files of their own."""
    files: dict[tuple[str, ...], SnapshotFiles] = {}
    with ExitStack() as open_files:
        for where, message in messages:
            try:
                batch = read_message(message)
            except SnapshotError:  # whoever replays it will say so
                batch = None
            if batch is not None and batch.num_rows:
                plan = (batch.column("plan_digest")[0].as_py(), *batch.schema.names)
                if plan not in files:
                    files[plan] = open_files.enter_context(SnapshotFiles(folder, batch.schema))
                files[plan].write(batch)
            yield where, message


def arrow_paths(where: str) -> tuple[list[str], Any]:
    """Returns the Parquet files of a log as pyarrow and Ray Data name them, and their file system (None: local).

    Raises:
        NoLogError: there is none.
    """
    parts = find_parts(where)
    if not parts[0].store:
        return [str(Path(part.name).resolve()) for part in parts], None
    scheme, _, root = parts[0].store.partition("://")
    return [f"{root}/{part.name}" for part in parts], _file_system(scheme, parts[0].store)


def _file_system(scheme: str, uri: str) -> Any:
    """The same credentials and endpoint as `open_store` takes, by their usual names."""
    if scheme == "file":
        return fs.LocalFileSystem()
    if not scheme.startswith("s3"):
        return fs.FileSystem.from_uri(uri)[0]
    endpoint = os.environ.get("AWS_ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL")
    return fs.S3FileSystem(
        access_key=os.environ.get("AWS_ACCESS_KEY_ID"),
        secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY"),
        session_token=os.environ.get("AWS_SESSION_TOKEN"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_override=endpoint,
    )
