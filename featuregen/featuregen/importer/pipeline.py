"""What pipeline.config says of a model: EasyRec's (`feature_config`) or TorchEasyRec's (`feature_configs`).

Read are the features' embeddings, the bucketizers that EasyRec's graph applies to what fg.json makes, feature groups,
the network's size, the label and the rows' optimizer. Of a feature nothing is skipped: an unknown key is an error.
Sections about data, training and export are no part of a model, and are reported as left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from featuregen.errors import FeatureError, did_you_mean
from featuregen.importer.textproto import Message, parse_textproto

_EASYREC = frozenset(
    """
    feature_name input_names feature_type sub_feature_type embedding_name embedding_dim combiner hash_bucket_size
    num_buckets vocab_list vocab_file boundaries separator kv_separator seq_multi_sep max_seq_len sequence_length
    shared_names raw_input_dim min_val max_val
    """.split()
)
_STORAGE = frozenset(
    """
    max_partitions initializer ev_params use_embedding_variable is_cache sequence_combiner init_fn trainable
    data_type embedding_constraints use_mask fg_encoded_default_value asset_dir
    """.split()
)
"""How rows are stored or first filled, which says nothing about a feature's value."""
_IN_GRAPH = ("ComboFeature", "LookupFeature", "ExprFeature", "PassThroughFeature")
_TZREC = frozenset(
    """
    feature_name expression embedding_name embedding_dim pooling default_value separator value_dim
    hash_bucket_size num_buckets vocab_list vocab_dict vocab_file boundaries default_bucketize_value normalizer
    weighted fg_value_type stub_type sequence_length sequence_delim sequence_fields map key combiner need_discrete
    need_key nested_map pkey skey show_pkey show_skey variables fill_missing query title method document
    kv_delimiter value_map value_separator tokenizer_type text_normalizer operator_name operator_lib_file
    operator_params is_op_thread_safe regex_pattern replacement replace_all icase
    """.split()
)
_REFUSED = {
    "zch": "give the feature hash_bucket_size",
    "dynamicemb": "give the feature hash_bucket_size",
    "autodis": "give the feature boundaries",
    "mlp": "give the feature boundaries",
    "tokens_as_sequence": "use the tokens as one feature",
    "normalizer_fn": "write a normalizer of method expression into fg.json",
    "precision": "send texts instead of floats",
    "lookup_max_sel_elem_num": "use lookup_feature in fg.json",
}
_BETAS = {"beta1": ("beta1", 1.0), "beta2": ("beta2", 1.0)}
_OPTIMIZERS: dict[str, tuple[str, dict[str, tuple[str, float]]]] = {
    "adagrad_optimizer": ("Adagrad", {}),
    "rowwise_adagrad_optimizer": ("RowwiseAdagrad", {}),
    "sgd_optimizer": ("SGD", {}),
    "adam_optimizer": ("Adam", _BETAS),
    "adam_async_optimizer": ("Adam", _BETAS),
    "lazy_adam_optimizer": ("Adam", _BETAS),
    "ftrl_optimizer": ("FTRL", {"l1_reg": ("l1", 1.0), "l2_reg": ("l2", 2.0)}),
}
"""Upstream's optimizer: kind, and parameters with their factor: TensorFlow's FTRL divides by sqrt(n) / lr + 2 l2."""
_CONSTANT = "constant_learning_rate"
_RATES = ("learning_rate", "initial_learning_rate", "learning_rate_base")
_NETWORKS = {"deepfm": "DeepFM", "wide_and_deep": "WideAndDeep", "multi_tower": "MultiTower"}
_LAYERS = ("dnn", "deep", "final_dnn", "final")
_PARTS = {"DEEP": ("deep",), "WIDE": ("wide",), "WIDE_AND_DEEP": ("wide", "deep")}


@dataclass(frozen=True)
class PipelineFeature:
    """A feature as the model sees it: its bucketizer and range if EasyRec's graph applies them, and its embedding."""

    name: str
    encode: dict[str, object] = field(default_factory=dict)
    boundaries: list[float] = field(default_factory=list)
    range: tuple[float, float] | None = None
    weighted: bool = False
    dim: int | None = None
    share: str = ""
    pooling: str = ""


@dataclass(frozen=True)
class Group:
    """A feature group; `parts` are the groups of DeepFM and WideAndDeep that it feeds, none for one of sequences."""

    name: str
    features: tuple[str, ...]
    parts: tuple[str, ...]


@dataclass
class Pipeline:
    """A pipeline.config that was read.

    Attributes:
        features: by the name that fg.json has for them.
        groups: feature groups in order.
        network: DeepFM, WideAndDeep, MultiTower, or upstream's name of another one; empty if there is none.
        hidden_units: layers of each part of the network, by upstream's name of the part.
        labels: label fields.
        row_optimizer: as in `embeddings.defaults`; empty if there is none, or none that maps.
        left_out: what has no place in a model, as `section` or `feature.key`.
        errors: what is wrong with single features.
    """

    features: dict[str, PipelineFeature] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    network: str = ""
    hidden_units: dict[str, list[int]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    row_optimizer: dict[str, object] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    errors: list[FeatureError] = field(default_factory=list)


def read_pipeline(text: str, joiner: str) -> Pipeline:
    """Reads a file; `joiner` stands between the names of a grouped sequence and its fields.

    Raises:
        FeatureError: the text is no message.
    """
    root = parse_textproto(text)
    found = Pipeline()
    for message in [one for config in _all(root, "feature_config") for one in _all(config, "features")]:
        _add(found, _easyrec, message, "")
    for message in _all(root, "feature_configs"):
        inner = next(iter(message.values()), [""])[0]
        if not isinstance(inner, dict):
            _add(found, _easyrec, message, "")
            continue
        sequence = _text(inner, "sequence_name")
        for part in _all(inner, "features") if sequence else [message]:
            _add(found, _torch, _first(part, next(iter(part), "")), sequence + joiner if sequence else "")
    _read_model(found, _first(root, "model_config"))
    found.labels = [str(one) for one in _first(root, "data_config").get("label_fields", [])]
    _read_optimizer(found, _first(root, "train_config"))
    read = ("feature_config", "feature_configs", "model_config")
    found.left_out += [key for key in root if key not in read]
    return found


def _add(found: Pipeline, read: Callable[[Message, str], PipelineFeature], message: Message, prefix: str) -> None:
    try:
        one = read(message, prefix)
        for name in (one.name, *(str(other) for other in message.get("shared_names", []))):
            if name in found.features:
                raise FeatureError(name, "pipeline.config has it twice", "remove one")
            found.features[name] = replace(one, name=name)
        found.left_out += [f"{one.name}.{key}" for key in message if key in _STORAGE]
    except FeatureError as error:
        found.errors.append(error)


def _easyrec(message: Message, prefix: str) -> PipelineFeature:
    inputs = [str(one) for one in message.get("input_names", [])]
    name = _text(message, "feature_name") or (inputs or [""])[0]
    kind = _text(message, "feature_type") or "IdFeature"
    if kind in _IN_GRAPH:
        hint = "write it into fg.json, so that samples and requests are computed by one plan"
        raise FeatureError(name, f"pipeline.config makes a {kind} in EasyRec's graph", hint)
    _check_keys(name, message, _EASYREC, kind)
    low, high = _number(message, "min_val", 0.0), _number(message, "max_val", 0.0)
    if high > low and message.get("num_buckets"):
        raise FeatureError(name, "pipeline.config cuts min_val..max_val into num_buckets", "give it boundaries instead")
    encode: dict[str, object] = {}
    for key, native in (("hash_bucket_size", "hashBuckets"), ("num_buckets", "identityBuckets")):
        size = int(_number(message, key, 0))
        encode |= {native: size} if size else {}
    words = [str(one) for one in message.get("vocab_list", [])]
    encode |= {"vocab": words} if words else {}
    encode |= {"vocabFile": _text(message, "vocab_file")} if message.get("vocab_file") else {}
    if len(encode) > 1:
        raise FeatureError(name, f"has both {' and '.join(encode)} in pipeline.config", "keep one of them")
    encode |= {"unknown": 0} if "vocab" in encode or "vocabFile" in encode else {}
    return PipelineFeature(
        name,
        encode,
        boundaries=[float(str(one)) for one in message.get("boundaries", [])],
        range=(low, high) if high > low else None,
        weighted=bool(_text(message, "kv_separator")),
        dim=int(_number(message, "embedding_dim", 0)) or None,
        share=_text(message, "embedding_name"),
        pooling=_text(message, "combiner"),
    )


def _torch(message: Message, prefix: str) -> PipelineFeature:
    """TorchEasyRec generates fg.json from the same message, so only what fg.json lacks is read."""
    name = prefix + _text(message, "feature_name")
    _check_keys(name, message, _TZREC, "TorchEasyRec")
    return PipelineFeature(
        name,
        dim=int(_number(message, "embedding_dim", 0)) or None,
        share=_text(message, "embedding_name"),
        pooling=_text(message, "pooling"),
    )


def _check_keys(name: str, message: Message, known: frozenset[str], kind: str) -> None:
    for key in message:
        if key in _REFUSED:
            raise FeatureError(name, f"'{key}' of pipeline.config has no counterpart", _REFUSED[key])
        if key not in known | _STORAGE:
            raise FeatureError(name, f"pipeline.config: unknown key '{key}'", did_you_mean(key, known, f"{kind} has"))


def _read_model(found: Pipeline, model: Message) -> None:
    parts = {key: _first(model, key) for key in model if key not in ("feature_groups", "losses", "metrics")}
    body_name = next((key for key in _NETWORKS if key in model), "")
    other = next((key for key, body in parts.items() if body), "")
    upstream = _text(model, "model_class") or body_name or other
    names = {**_NETWORKS, **{name: name for name in _NETWORKS.values()}}
    found.network = names.get(upstream, upstream)
    body = parts.get(body_name, {})
    for key in _LAYERS:
        _layers(found, key, _first(body, key))
    for tower in _all(body, "towers"):
        for key in ("dnn", "mlp"):
            _layers(found, _text(tower, "input"), _first(tower, key))
    found.left_out += [f"{body_name}.{key}" for key in body if key not in (*_LAYERS, "towers")]
    for group in _all(model, "feature_groups"):
        kind = _text(group, "wide_deep") or _text(group, "group_type") or "DEEP"
        sequences = any(key in group for key in ("sequence_features", "sequence_groups", "sequence_encoders"))
        features = tuple(str(one) for one in group.get("feature_names", []))
        found.groups.append(Group(_text(group, "group_name"), features, () if sequences else _PARTS.get(kind, ())))


def _layers(found: Pipeline, part: str, message: Message) -> None:
    units = message.get("hidden_units", [])
    if units:
        found.hidden_units[part] = [int(str(one)) for one in units]
    found.left_out += [f"{part}.{key}" for key in message if key != "hidden_units"]


def _read_optimizer(found: Pipeline, train: Message) -> None:
    """TorchEasyRec's sparse_optimizer; EasyRec's optimizer_config if there is one for everything."""
    several = _all(train, "optimizer_config")
    chosen = _first(train, "sparse_optimizer") or (several[0] if len(several) == 1 else {})
    for key in chosen:
        inner = _first(chosen, key)
        if key in _OPTIMIZERS:
            kind, parameters = _OPTIMIZERS[key]
            schedules = _first(inner, "learning_rate")
            rates = [_number(inner, "lr", 0.0), *(_rate(_first(schedules, one)) for one in schedules)]
            native = {name: factor * _number(inner, p, 0.0) for p, (name, factor) in parameters.items() if p in inner}
            if any(rates):
                found.row_optimizer = {"kind": kind, "learningRate": max(rates)} | native
            found.left_out += [f"{key}.{one}" for one in inner if one not in ("lr", "learning_rate", *parameters)]
            found.left_out += [f"{key}.{one}" for one in schedules if one != _CONSTANT]
        elif key != _CONSTANT:
            found.left_out.append(key)


def _rate(schedule: Message) -> float:
    """The constant rate, or the one that a schedule begins with: a model has no schedule."""
    return next((_number(schedule, key, 0.0) for key in _RATES if key in schedule), 0.0)


def _all(message: Message, key: str) -> list[Message]:
    return [one for one in message.get(key, []) if isinstance(one, dict)]


def _first(message: Message, key: str) -> Message:
    return next(iter(_all(message, key)), {})


def _text(message: Message, key: str) -> str:
    value = next(iter(message.get(key, [])), "")
    return value if isinstance(value, str) else ""


def _number(message: Message, key: str, default: float) -> float:
    value = next(iter(message.get(key, [])), default)
    if not isinstance(value, int | float):
        raise FeatureError(None, f"pipeline.config: {key} is {value!r}", "write a number")
    return value
