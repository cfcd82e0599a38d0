"""What a schema cannot say, in one place: CEL rules, list keys and immutability, by the type that they belong to.

Pydantic checks the same resources again when the operator reads them; CEL is what makes `kubectl apply` refuse a wrong
one at once. Rules stay cheap (no loops over lists of lists), for the API server bounds their cost.
"""

from dataclasses import dataclass

from kuberec_api.model import LEAST_BYTES


@dataclass(frozen=True)
class Rule:
    """A CEL expression over `self` that must hold, and what the user reads when it does not."""

    rule: str
    message: str


def _exactly_one(*fields: str) -> str:
    return f"[{', '.join(f'has(self.{f})' for f in fields)}].filter(set, set).size() == 1"


_OPS_OF_TEXTS = ["id", "combo", "bool_mask", "tokenize", "text_normalizer", "regex_replace", "str_format", "str_slice"]
_POSITIVE = "duration(self.{0}) > duration('0s')"

RULES: dict[str, tuple[Rule, ...]] = {
    "Encode": (
        Rule(
            _exactly_one("hashBuckets", "identityBuckets", "vocab", "vocabDict", "vocabFile"),
            "encode: set exactly one of hashBuckets, identityBuckets, vocab, vocabDict, vocabFile",
        ),
        Rule(
            "!has(self.vocabFile) || (has(self.unknown) && has(self.vocabSize))",
            "encode: `vocabFile` needs `unknown` and `vocabSize`",
        ),
    ),
    "Feature": (
        Rule("!(has(self.encode) && has(self.like))", "set `encode` or `like`, not both"),
        Rule(
            f"!(self.op in {_OPS_OF_TEXTS}) || has(self.encode) || has(self.like) || (has(self.stub) && self.stub)",
            "a feature of texts needs one encoder: set `encode` or `like`, or `stub: true` if only others read it",
        ),
        Rule(
            "!(has(self.stub) && self.stub) || !(has(self.encode) || has(self.like) || has(self.boundaries))",
            "a stub has no output: remove `encode`, `like` and `boundaries`",
        ),
        Rule("!has(self.windows) || self.op == 'window'", "`windows` belongs to op `window`"),
    ),
    "SequenceField": (
        Rule("has(self.__in__) != has(self.expr)", "a sequence field has either `in` or `expr`"),
        Rule("!(has(self.encode) && has(self.like))", "set `encode` or `like`, not both"),
    ),
    "SparseOptimizer": (
        Rule("self.kind == 'Adam' || !(has(self.beta1) || has(self.beta2))", "optimizer: only Adam has beta1, beta2"),
        Rule("self.kind == 'FTRL' || !(has(self.l1) || has(self.l2))", "optimizer: only FTRL has l1, l2"),
    ),
    "Eviction": (
        Rule("has(self.idle) || has(self.maxRows) || has(self.maxBytes)", "eviction: set idle, maxRows or maxBytes"),
        Rule("!has(self.idle) || " + _POSITIVE.format("idle"), "eviction.idle: must be longer than 0s"),
        Rule(
            f"!has(self.maxBytes) || quantity(self.maxBytes).compareTo(quantity('{LEAST_BYTES}')) >= 0",
            f"eviction.maxBytes: give at least {LEAST_BYTES}, or leave it away for no limit",
        ),
    ),
    "Source": (Rule(_exactly_one("kafka", "files"), "source: set exactly one of kafka, files"),),
    "KafkaSource": (
        Rule(
            "self.format != 'Csv' || (has(self.csv) && has(self.csv.columns) && self.csv.columns.size() > 0)",
            "kafka: format Csv needs `csv.columns`, the fields of a line in order",
        ),
        Rule("self.format == 'Csv' || !has(self.csv)", "kafka: `csv` belongs to format Csv"),
        Rule(
            "(self.startFrom == 'Timestamp') == has(self.startTimestamp)",
            "kafka: startFrom Timestamp needs `startTimestamp`, and only that has one",
        ),
        Rule(
            "(self.startFrom == 'Offsets') == (has(self.startOffsets) && self.startOffsets.size() > 0)",
            "kafka: startFrom Offsets needs `startOffsets`, and only that has some",
        ),
    ),
    "KafkaSecurity": (
        Rule("self.protocol == 'Ssl' || has(self.secretRef)", "security: the Sasl protocols need `secretRef`"),
    ),
    "FilesSource": (
        Rule(
            "self.uri.matches('^(s3|gs|az|file)://.+')",
            "files.uri: use s3://bucket/path, gs://..., az://... or file:///path, with * and ** as wildcards",
        ),
        Rule("self.format == 'Csv' || !has(self.csv)", "files: `csv` belongs to format Csv"),
    ),
    "Range": (
        Rule("has(self.min) || has(self.max)", "range: set min, max or both"),
        Rule("!has(self.min) || !has(self.max) || self.min <= self.max", "range: min is above max"),
    ),
    "Checkpoint": (
        Rule(
            "self.uri.matches('^(s3|gs|az|file)://.+')",
            "checkpoint.uri: use s3://bucket/path, gs://..., az://... or file:///path",
        ),
        Rule(_POSITIVE.format("interval"), "checkpoint.interval: must be longer than 0s"),
    ),
    "WarmStart": (
        Rule(_exactly_one("uri", "trainingRef"), "warmStart: set exactly one of uri, trainingRef"),
        Rule(
            "!has(self.uri) || self.uri.matches('^(s3|gs|az|file)://.+')",
            "warmStart.uri: use s3://bucket/path, gs://..., az://... or file:///path",
        ),
    ),
    "Publish": (Rule(_POSITIVE.format("interval"), "publish.interval: must be longer than 0s"),),
    "ServedVersion": (Rule("self.policy != 'Pinned' || has(self.version)", "version: policy Pinned needs `version`"),),
    "Timeouts": (
        Rule(_POSITIVE.format("redis"), "timeouts.redis: must be longer than 0s"),
        Rule(_POSITIVE.format("request"), "timeouts.request: must be longer than 0s"),
    ),
}

NAME_RULE = Rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 40",
    "metadata.name: at most 40 characters a-z, 0-9 and '-', starting with a letter, so that every child's name fits",
)

# Fields that never change after creation, by type.
IMMUTABLE: dict[str, tuple[str, ...]] = {
    "RecTrainingSpec": ("modelRef",),
    "RecServingSpec": ("trainingRef",),
}

# Lists whose items have an identity: names are unique, and server-side apply merges item by item.
LIST_KEYS: dict[str, dict[str, str]] = {
    "FeatureSpec": {"list": "name"},
    "Embeddings": {"tables": "name"},
    "RecModelSpec": {"tasks": "name"},
    "RecTrainingSpec": {"monitors": "name"},
    "RecModelStatus": {"conditions": "type"},
    "RecTrainingStatus": {"conditions": "type"},
    "RecServingStatus": {"conditions": "type"},
}


def rules_of(type_name: str) -> tuple[Rule, ...]:
    """Returns all CEL rules of a type, immutability included."""
    kept = tuple(
        Rule(f"self.{field} == oldSelf.{field}", f"{field} is immutable: delete the resource and create another")
        for field in IMMUTABLE.get(type_name, ())
    )
    return (*RULES.get(type_name, ()), *kept)
