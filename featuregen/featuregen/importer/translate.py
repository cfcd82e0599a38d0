"""The import itself: every entry of fg.json through its translator, then types, tables, network, and the compiler.

Mistakes are collected: a file of a thousand features is mended in one round, not in a thousand.
"""

from collections.abc import Callable, Collection, Mapping

from pydantic import ValidationError

from featuregen.compiler import compile_plan
from featuregen.errors import FeatureError
from featuregen.importer.dialect import DIALECTS, DialectName
from featuregen.importer.fgjson import FgFeature, FgFile, FgSequence, read_fg
from featuregen.importer.fields import Fields
from featuregen.importer.model import Made, build_model, share_tables
from featuregen.importer.operators import TRANSLATORS
from featuregen.importer.pipeline import read_pipeline
from featuregen.importer.result import Imported
from featuregen.importer.sequences import grouped, plain
from featuregen.importer.tails import Native, Translation
from featuregen.sources import Sources
from featuregen.spec import Feature, FeatureSpec, FieldType, HashName

Entry = FgFeature | FgSequence | FeatureError


class ImportFailedError(ValueError):
    """Everything that cannot be imported, in the order of the file."""

    def __init__(self, errors: list[FeatureError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in errors))


def import_fg(
    fg_json: str,
    dialect: DialectName,
    hash_name: HashName,
    *,
    pipeline_config: str | None = None,
    user_key: str = "user_id",
    item_key: str = "item_id",
    field_types: Mapping[str, FieldType] | None = None,
    behaviors: Collection[str] = (),
    read_file: Callable[[str], bytes | None] = lambda _: None,
) -> Imported:
    """Translates fg.json to a native spec.

    Args:
        fg_json: the file's text.
        dialect: whose defaults it was written for.
        hash_name: the hash that its ids are made with.
        pipeline_config: the text of EasyRec's or TorchEasyRec's pipeline.config.
        user_key: field that identifies a user.
        item_key: field that identifies an item.
        field_types: types of fields, `user.age` to `int`, where the operators leave a choice.
        behaviors: grouped sequences that are to read a logged behaviour instead of lists of the user.
        read_file: content of a file that fg.json names; None if there is no such file.

    Raises:
        ImportFailedError: holds every FeatureError.
    """
    rules = DIALECTS[dialect]
    errors: list[FeatureError] = []
    try:
        file = read_fg(fg_json, rules)
        pipeline = None if pipeline_config is None else read_pipeline(pipeline_config, rules.joiner)
    except FeatureError as error:
        raise ImportFailedError([error]) from error
    errors += file.errors + (pipeline.errors if pipeline else [])
    fields = Fields(user_key, item_key, field_types or {}, behaviors)
    t = Translation(rules, hash_name, fields, pipeline.features if pipeline else {}, read_file)
    natives, made = _translate(t, file, behaviors, errors)
    sources, disagreements = fields.sources()
    errors += disagreements
    if errors:
        raise ImportFailedError(errors)
    try:
        share_tables(made)
        _note_pooled(sources, natives, made)
        model = build_model(made, pipeline, file.model_type, file.labels, file.embedding_dim)
        spec = _spec(hash_name, sources, t.files, natives)
        compile_plan(spec)
    except FeatureError as error:
        raise ImportFailedError([error]) from error
    left_out = [*file.left_out, *(pipeline.left_out if pipeline else [])]
    notes = [*t.notes, *model.notes]
    notes += [f"file '{name}' is {path}: put it into the ConfigMap of files" for name, path in t.paths.items()]
    notes += [f"left out, as it has no place in a RecModel: {', '.join(left_out)}"] if left_out else []
    return Imported(spec, natives, model, t.paths, _assumed(t, spec), notes)


def _translate(
    t: Translation, file: FgFile, behaviors: Collection[str], errors: list[FeatureError]
) -> tuple[list[Native], list[Made]]:
    natives: list[Native] = []
    made: list[Made] = []
    for entry in _with_vectors(file.entries):
        if isinstance(entry, FeatureError):
            errors.append(entry)
            continue
        try:
            if isinstance(entry, FgSequence):
                native = grouped(t, entry, entry.name in behaviors)
                inner = zip(entry.features, _dicts(native["fields"]), strict=True)
                made += [_made(t, f, entry.name, one) for f, one in inner]
            elif entry.plain_sequence:
                native = plain(t, entry)
                made.append(_made(t, entry, entry.name, _dicts(native["fields"])[0]))
            else:
                native = {"name": entry.name} | TRANSLATORS[entry.kind](t, entry)
                made.append(_made(t, entry, entry.name, native))
            natives.append(native)
        except FeatureError as error:
            errors.append(error)
    unread = [name for name in behaviors if not any(isinstance(e, FgSequence) and e.name == name for e in file.entries)]
    errors += [
        FeatureError(None, f"--behavior {name}: there is no such grouped sequence", "remove it") for name in unread
    ]
    errors += _read_buckets(t, natives)
    known = {one.name for one in made} | {error.feature for error in errors}
    hint = "write it into fg.json, so that samples and requests are computed by one plan"
    errors += [FeatureError(name, "is in pipeline.config only", hint) for name in t.pipeline if name not in known]
    return natives, made


def _dicts(value: object) -> list[Native]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _made(t: Translation, f: FgFeature, feature: str, native: Native) -> Made:
    """Notes what the model needs to know of a feature."""
    sequence = native.get("op") is None
    name = native.get("name") or str(native.get("in", "")).rpartition(".")[2]
    has_table = any(native.get(key) for key in ("encode", "boundaries"))
    other = t.pipeline.get(f.name)
    own = f.whole("embedding_dim", 0) or None
    if other and other.dim and own and other.dim != own:
        t.notes.append(f"feature '{f.name}': embedding_dim {other.dim} of pipeline.config, not {own} of fg.json")
    own_pooling = f.text_or("combiner", "") if "encode" in native and "combiner" not in native else ""
    return Made(
        f.name,
        feature,
        native,
        (f"{feature}__{name}" if sequence else feature) if has_table else None,
        dim=(other.dim if other else None) or own,
        group=f.text_or("group", ""),
        share=(other.share if other else "") or f.text_or("share", ""),
        pooling=(other.pooling if other else "") or own_pooling,
        stub=native.get("stub") is True,
    )


def _note_pooled(sources: Sources, natives: list[Native], made: list[Made]) -> None:
    """Whether a sample may have several ids: of a feature that reads a list or a map. Sequences are pooled as such."""
    types = {
        f"{side}.{name}": kind.value
        for side, source in (("user", sources.user), ("item", sources.item), ("context", sources.context))
        for name, kind in (source.fields if source else {}).items()
    }
    several = {
        str(native["name"])
        for native in natives
        if native["op"] != "sequence"
        for refs in native.values()
        for ref in (refs if isinstance(refs, list) else [refs])
        if isinstance(ref, str) and types.get(ref, "").startswith(("list", "map"))
    }
    for one in made:
        one.pooled = one.table is not None and one.feature in several


def _with_vectors(entries: list[Entry]) -> list[Entry]:
    """TorchEasyRec writes a lookup of vectors as a stub, `<name>__lookup`, and a raw_feature that splits its text."""
    stubs = {
        entry.name: entry
        for entry in entries
        if isinstance(entry, FgFeature) and entry.kind == "lookup_feature" and entry.keys.get("stub_type") is True
    }
    found: list[Entry] = []
    used: set[str] = set()
    for entry in entries:
        name = f"{entry.name}__lookup" if isinstance(entry, FgFeature) else ""
        if name in stubs and isinstance(entry, FgFeature) and entry.keys.get("expression") == f"feature:{name}":
            stub = stubs[name].keys
            keys = {"map": stub.get("map"), "key": stub.get("key"), "combiner": "", "needDiscrete": False}
            keys |= {key: value for key, value in entry.keys.items() if key not in ("expression", "value_type")}
            found.append(FgFeature(entry.name, "lookup_feature", keys))
            used.add(name)
        else:
            found.append(entry)
    return [entry for entry in found if not isinstance(entry, FgFeature) or entry.name not in used]


def _read_buckets(t: Translation, natives: list[Native]) -> list[FeatureError]:
    """Upstream `feature:x` is the bucket of x, here `feature.x` is the value before it."""
    found = {str(native["name"]): native for native in natives}
    errors = []
    for reader, name in t.fields.features:
        key = next((key for key in ("encode", "boundaries") if key in found.get(name, {})), None)
        if key is not None:
            hint = f"let it read a copy of '{name}' without a bucketizer, with stub_type: true"
            errors.append(
                FeatureError(reader, f"reads the bucket of '{name}', here it would be the value before it", hint)
            )
    return errors


def _spec(hash_name: HashName, sources: Sources, files: Mapping[str, Native], natives: list[Native]) -> FeatureSpec:
    features = []
    for native in natives:
        try:
            features.append(Feature.model_validate(native))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise FeatureError(str(native["name"]), f"{where}: {first['msg']}", "change it in fg.json") from error
    if not features:
        raise FeatureError(None, "fg.json has no features", "add some")
    data = {"hash": hash_name, "sources": sources.model_dump(by_alias=True, exclude_unset=True)}
    return FeatureSpec.model_validate(data | ({"files": dict(files)} if files else {}) | {"list": natives})


def _assumed(t: Translation, spec: FeatureSpec) -> list[str]:
    sources = spec.sources
    lines = [f"dialect {t.dialect.name.value}, hash {t.hash.value}"]
    keys = [
        f"{side}s are known by {source.key}"
        for side, source in (("user", sources.user), ("item", sources.item))
        if source
    ]
    lines += [f"{' and '.join(keys)} (--user-key, --item-key)"] if keys else []
    lines.append("fields have types: lists and maps, not texts with separators (--field user.age=int changes one)")
    if sources.context:
        lines.append("a context field comes with every candidate; take it out of perItem if it is one for all")
    sequences = [feature for feature in spec.list if feature.length is not None]
    if any(feature.behavior is None for feature in sequences):
        lines.append(
            "sequences are lists in samples and requests, their first elements are kept (--behavior reads events)"
        )
    for name in sources.behavior:
        lines.append(f"every event of {name} has a ts; the last ones are kept, oldest first")
    return lines
