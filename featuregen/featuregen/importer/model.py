"""The model around the features: embeddings, groups and the label, from pipeline.config or from fg.json's own keys.

fg.json may say `embedding_dim`, `group`, `model_type` and `label_fields` itself (EasyRec generates a pipeline.config
from them); a pipeline.config that is given goes before. A network that this release lacks is not approximated.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featuregen.errors import FeatureError, did_you_mean
from featuregen.importer.fgjson import check_name
from featuregen.importer.pipeline import Group, Pipeline
from featuregen.importer.tails import Native

NETWORKS = ("DeepFM", "WideAndDeep", "MultiTower")
_MODEL_TYPES = {"deepfm": "DeepFM", "wide_and_deep": "WideAndDeep", "multi_tower": "MultiTower"}


@dataclass
class Made:
    """What a feature of fg.json has become.

    Attributes:
        name: its name in fg.json, `<sequence>__<feature>` in a grouped sequence.
        feature: the native feature.
        native: where its encoder is: the feature's dictionary, or that of a sequence's field.
        table: the embedding table; None for numbers.
        dim: its embedding_dim.
        group: its group in fg.json.
        share: the label that features with one embedding have in common.
        pooling: how the rows of several ids are joined.
        pooled: a sample may have several ids.
        stub: only read by other features.
    """

    name: str
    feature: str
    native: Native
    table: str | None
    dim: int | None = None
    group: str = ""
    share: str = ""
    pooling: str = ""
    pooled: bool = False
    stub: bool = False


@dataclass
class Model:
    """Embeddings, network and tasks as in RecModel.spec; `why` says why there is no network."""

    embeddings: Native = field(default_factory=dict)
    network: Native | None = None
    tasks: list[Native] = field(default_factory=list)
    why: str = ""
    notes: list[str] = field(default_factory=list)


def share_tables(made: Sequence[Made]) -> None:
    """Replaces the encoders of features with a common embedding by `like`.

    Raises:
        FeatureError: their encoders differ.
    """
    named = {one.name: one for one in made if one.table}
    for label in dict.fromkeys(one.share for one in made if one.share):
        of_label = [one for one in made if one.share == label]
        owner = named.get(label) or next((one for one in of_label if one.table), of_label[0])
        for one in of_label:
            if one is owner:
                continue
            keys = ("encode", "boundaries")
            if [one.native.get(key) for key in keys] != [owner.native.get(key) for key in keys]:
                problem = f"shares the embedding '{label}' with '{owner.name}', which has another bucketizer"
                raise FeatureError(one.name, problem, "give both the same one, or each its own embedding")
            if "boundaries" in one.native:
                hint = "give each its own embedding: remove embedding_name"
                raise FeatureError(one.name, f"shares the embedding '{label}' of numbers in buckets", hint)
            if "encode" in one.native:
                one.native["like"] = owner.table
                del one.native["encode"]
                one.table = owner.table
                one.dim = one.dim or owner.dim
                owner.dim = owner.dim or one.dim


def build_model(
    made: Sequence[Made], pipeline: Pipeline | None, model_type: str, labels: list[str], default_dim: int | None
) -> Model:
    """Builds what surrounds the features; `model_type`, `labels` and `default_dim` are fg.json's own."""
    model = Model()
    _embeddings(model, made, pipeline, default_dim)
    groups = pipeline.groups if pipeline else []
    kind = pipeline.network if pipeline else _MODEL_TYPES.get(model_type.lower(), model_type)
    if not pipeline and kind in NETWORKS:
        groups = _own_groups(made, kind)
    labels = (pipeline.labels if pipeline else []) or labels
    _tasks(model, labels)
    if not kind:
        model.why = "neither fg.json nor a pipeline.config says which network"
    elif kind not in NETWORKS:
        model.why = f"this release has no network {kind}, only {', '.join(NETWORKS)}"
    elif any(not group.parts for group in groups):
        name = next(group.name for group in groups if not group.parts)
        model.why = f"feature group '{name}' encodes sequences, which the networks of this release do not"
    elif not labels:
        model.why = "there are no label_fields"
    else:
        _network(model, kind, groups, made, pipeline)
    return model


def _embeddings(model: Model, made: Sequence[Made], pipeline: Pipeline | None, default_dim: int | None) -> None:
    dims: dict[str, int] = {}
    for one in made:
        dim = one.dim or default_dim
        if one.table and dim:
            if dims.setdefault(one.table, dim) != dim:
                raise FeatureError(one.name, f"embedding_dim {dim} of a table that has {dims[one.table]}", "give one")
    numbers = [one.name for one in made if one.dim and not one.table and not one.stub]
    if numbers:
        model.notes.append(
            f"embedding_dim of numbers is left out, they enter the network as they are: {_names(numbers)}"
        )
    pooled = [one.name for one in made if one.pooled and one.pooling.lower() not in ("", "sum")]
    if pooled:
        model.notes.append(f"the rows of several ids are added up, not averaged: {_names(pooled)}")
    defaults: Native = {}
    if dims:
        common = Counter(dims.values()).most_common(1)[0][0]
        defaults["dim"] = common
        odd: list[Native] = [{"name": table, "dim": dim} for table, dim in dims.items() if dim != common]
        model.embeddings = {"defaults": defaults} | ({"tables": odd} if odd else {})
    if pipeline and pipeline.row_optimizer:
        defaults["optimizer"] = pipeline.row_optimizer
        model.embeddings["defaults"] = defaults


def _own_groups(made: Sequence[Made], kind: str) -> list[Group]:
    """EasyRec's rule for `group`: of DeepFM every feature is in both; of MultiTower each group is a tower."""
    by_group: dict[str, list[str]] = {}
    for one in made:
        if one.stub:
            continue
        group = one.group or ("wide_and_deep" if kind != "MultiTower" else one.name.split("_")[0])
        group = group if kind != "DeepFM" else "wide_and_deep"
        by_group.setdefault(group, []).append(one.name)
    parts = {"wide": ("wide",), "deep": ("deep",)}
    return [Group(name, tuple(names), parts.get(name, ("wide", "deep"))) for name, names in by_group.items()]


def _tasks(model: Model, labels: list[str]) -> None:
    for label in labels:
        check_name("label_fields", str(label))
    model.tasks = [{"name": label, "label": label} for label in labels[:1]]
    if len(labels) > 1:
        model.notes.append(f"one task, '{labels[0]}': this release has no others, {_names(labels[1:])} are left out")


def _network(model: Model, kind: str, groups: Sequence[Group], made: Sequence[Made], pipeline: Pipeline | None) -> None:
    features = {one.name: one for one in made if not one.stub}
    native: dict[str, list[str]] = {}
    for group in groups:
        for name in group.features:
            if name not in features:
                problem = f"feature group '{group.name}' names '{name}', which fg.json does not make"
                raise FeatureError(None, problem, did_you_mean(name, features, "made"))
            for part in (group.name,) if kind == "MultiTower" else group.parts:
                native.setdefault(part, []).append(name)
    if kind != "MultiTower":
        numbers = [name for name in native.get("wide", []) if features[name].table is None]
        native["wide"] = [name for name in native.get("wide", []) if features[name].table is not None]
        if numbers:
            model.notes.append(f"numbers have no linear weight, they are left out of group wide: {_names(numbers)}")
    empty = next((part for part in ("wide", "deep") if kind != "MultiTower" and not native.get(part)), None)
    if empty:
        model.why = f"group '{empty}' of {kind} has no feature"
        return
    _whole_sequences(model, native, features)
    of = {part: list(dict.fromkeys(features[name].feature for name in names)) for part, names in native.items()}
    model.network = {"kind": kind, "groups": {part: of[part] for part in sorted(of, key=lambda p: p != "wide")}}
    unused = [one.name for one in made if not one.stub and not any(one.feature in names for names in of.values())]
    if unused:
        model.notes.append(f"in no feature group, computed for nothing: {_names(unused)}")
    units = dict(pipeline.hidden_units) if pipeline else {}
    chosen = next((units.pop(part) for part in ("dnn", "deep", *native) if part in units), None)
    if chosen:
        model.network["params"] = {"hiddenUnits": chosen}
    left = [f"{part} {layers}" for part, layers in units.items() if layers != chosen]
    if left:
        model.notes.append(f"the network has the layers {chosen} everywhere, not as asked: {'; '.join(left)}")


def _whole_sequences(model: Model, native: Mapping[str, list[str]], features: Mapping[str, Made]) -> None:
    for part, names in native.items():
        for sequence in dict.fromkeys(features[name].feature for name in names):
            absent = [n for n, one in features.items() if one.feature == sequence and n not in names]
            if absent:
                model.notes.append(f"group '{part}' takes sequence '{sequence}' as a whole, with {_names(absent)} too")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
