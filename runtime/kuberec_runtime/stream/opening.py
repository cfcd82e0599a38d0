"""One place that knows which kinds of sources there are: what a training's spec says, opened for a worker."""

from collections.abc import Sequence

import pyarrow as pa

from kuberec_api.source import Source as SourceSpec
from kuberec_runtime.stream.files import FileSource
from kuberec_runtime.stream.kafka import KafkaSource
from kuberec_runtime.stream.source import PartitionStart, SchemaError, Source
from kuberec_runtime.stream.tabular import ColumnError


def open_source(
    spec: SourceSpec, schema: pa.Schema, starts: Sequence[PartitionStart], batch_size: int, in_order: bool = False
) -> Source:
    """Opens a worker's share.

    Args:
        spec: has exactly one kind.
        schema: the flat schema of samples.
        starts: the worker's partitions.
        batch_size: samples of a full batch.
        in_order: batches of bounded partitions are a function of positions alone, all but the last are full.

    Raises:
        SchemaError: samples of the schema cannot come in this format.
    """
    try:
        if spec.files is not None:
            return FileSource(spec.files, schema, starts, batch_size, in_order)
        assert spec.kafka is not None
        return KafkaSource(spec.kafka, schema, starts, batch_size, in_order)
    except ColumnError as error:
        raise SchemaError(str(error)) from error
