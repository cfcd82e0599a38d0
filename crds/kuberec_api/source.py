"""Where samples come from: a Kafka topic or files, how they are read, where a first start begins and where it ends."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from featuregen.spec import SpecModel
from kuberec_api.meta import Credentials, KafkaTopic, SecretRef


class KafkaFormat(StrEnum):
    """Encoding of a message.

    One JSON object (one sample), an Arrow IPC stream of many samples, or CSV lines without a header.
    """

    JSON = "Json"
    ARROW = "Arrow"
    CSV = "Csv"


class FilesFormat(StrEnum):
    """Format of files: Parquet, Arrow IPC (file or stream), or CSV in lines."""

    PARQUET = "Parquet"
    ARROW = "Arrow"
    CSV = "Csv"


class StartFrom(StrEnum):
    """Where a partition without a committed offset starts."""

    EARLIEST = "Earliest"
    LATEST = "Latest"
    TIMESTAMP = "Timestamp"
    OFFSETS = "Offsets"


class OnOffsetOutOfRange(StrEnum):
    """When the broker has deleted records before they were read: `Fail`, or go on at the `Earliest` and count them."""

    FAIL = "Fail"
    EARLIEST = "Earliest"


class SecurityProtocol(StrEnum):
    """How brokers are spoken to."""

    SASL_SSL = "SaslSsl"
    SASL_PLAINTEXT = "SaslPlaintext"
    SSL = "Ssl"


class SaslMechanism(StrEnum):
    """How a client proves who it is."""

    SCRAM_SHA_512 = "ScramSha512"
    SCRAM_SHA_256 = "ScramSha256"
    PLAIN = "Plain"


class KafkaSecurity(SpecModel):
    """How a client proves who it is to the brokers, and they to it. Only the names of Secrets stand here.

    `secretRef`: keys `username` and `password`, for the Sasl protocols. `tlsSecretRef`: `ca.crt` of brokers whose
    authority the image does not know, and `tls.crt`, `tls.key` if they want a client's certificate.
    """

    protocol: SecurityProtocol = SecurityProtocol.SASL_SSL
    mechanism: SaslMechanism = SaslMechanism.SCRAM_SHA_512
    secret_ref: SecretRef | None = None
    tls_secret_ref: SecretRef | None = None

    @model_validator(mode="after")
    def _sasl_has_a_secret(self) -> "KafkaSecurity":
        if self.protocol is not SecurityProtocol.SSL and self.secret_ref is None:
            raise ValueError("the Sasl protocols need `secretRef`, a Secret with username and password")
        return self


class StopAt(StrEnum):
    """When a training ends: `Never`, or at the offsets that were the topic's end when the training first started."""

    NEVER = "Never"
    END = "End"


class OnBadRecord(StrEnum):
    """What a record that does not parse does: `Fail` the attempt, or be skipped, counted and sampled in status."""

    FAIL = "Fail"
    SKIP = "Skip"


RFC3339 = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$"
PartitionNumber = Annotated[str, Field(pattern=r"^[0-9]{1,6}$")]
_Separator = Annotated[str, Field(min_length=1, max_length=1)]


class Csv(SpecModel):
    """How CSV lines are read; nothing between two separators is a missing value.

    `columns` names the fields of a line in order (`user.age`, `label.click`, `now`), those that nobody reads included;
    without it the first line of every file is the header. Elements of lists are separated by `listSeparator`, those of
    a list's or a map's inner lists by `innerSeparator`; a map's entries are `key:value` with `keySeparator`.
    """

    separator: _Separator = ","
    columns: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=4096)] = Field(
        default_factory=list
    )
    list_separator: _Separator = "|"
    inner_separator: _Separator = ";"
    key_separator: _Separator = ":"


class KafkaSource(KafkaTopic):
    """A Kafka topic. Consumer groups are not used: offsets live in the checkpoint.

    `startTimestamp` (RFC 3339) and `startOffsets` (by partition, the others start at their earliest record) say where a
    first start begins; a time behind the newest record means the end.
    """

    format: KafkaFormat = KafkaFormat.JSON
    csv: Csv | None = None
    start_from: StartFrom = StartFrom.EARLIEST
    start_timestamp: Annotated[str, Field(max_length=40, pattern=RFC3339)] | None = None
    start_offsets: Annotated[dict[PartitionNumber, Annotated[int, Field(ge=0)]], Field(max_length=1024)] = Field(
        default_factory=dict
    )
    stop_at: StopAt = StopAt.NEVER
    on_bad_record: OnBadRecord = OnBadRecord.FAIL
    on_offset_out_of_range: OnOffsetOutOfRange = OnOffsetOutOfRange.FAIL
    security: KafkaSecurity | None = None

    @model_validator(mode="after")
    def _start_is_given(self) -> "KafkaSource":
        if (self.start_from is StartFrom.TIMESTAMP) != (self.start_timestamp is not None):
            raise ValueError("startFrom Timestamp needs `startTimestamp`, and only that has one")
        if (self.start_from is StartFrom.OFFSETS) != bool(self.start_offsets):
            raise ValueError("startFrom Offsets needs `startOffsets`, and only that has some")
        return self

    @model_validator(mode="after")
    def _csv_has_columns(self) -> "KafkaSource":
        if (self.format is KafkaFormat.CSV) != (self.csv is not None and bool(self.csv.columns)):
            raise ValueError("format Csv needs `csv.columns`, the fields of a line in order; others have no `csv`")
        return self


class FilesSource(SpecModel):
    """Files of samples: a topic that ends. The list of files is fixed when the training first starts.

    `uri` is a file, a folder, or a pattern (`*` within a name, `**` over folders) at `s3://`, `gs://`, `az://` or
    `file:///`. Another `uri` in a running training adds its files behind those that it has.
    """

    uri: Annotated[str, Field(min_length=1, max_length=1024)]
    format: FilesFormat = FilesFormat.PARQUET
    csv: Csv | None = None
    on_bad_record: OnBadRecord = OnBadRecord.FAIL
    credentials: Credentials | None = None


class Source(SpecModel):
    """Exactly one source of samples."""

    kafka: KafkaSource | None = None
    files: FilesSource | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Source":
        if (self.kafka is None) == (self.files is None):
            raise ValueError("set exactly one of kafka, files")
        return self
