"""One function per feature type of fg.json: what it means, written as a native feature.

Each returns the feature without its name. What the native operator does otherwise than upstream is refused, with the
option to set; where upstream's documentation leaves a case open the difference is noted.
"""

from collections.abc import Callable

from featuregen.errors import did_you_mean
from featuregen.expression import Code, ExpressionError, parse_expression
from featuregen.importer.dialect import DialectName
from featuregen.importer.fgjson import ENCODERS, FgFeature, value_kind
from featuregen.importer.fields import (
    MANY_TEXTS,
    MANY_WHOLE,
    NUMBER,
    NUMBERS,
    ONE_TEXT,
    ONE_WHOLE,
    WHOLE_NUMBER,
    WHOLE_NUMBERS,
    T,
)
from featuregen.importer.operators_text import bool_mask, custom, regex_replace, text_normalizer, tokenize
from featuregen.importer.tails import Native, Translation, number_tail, refuse_float_id, text_tail, width
from featuregen.spec import OverlapMethod

COMBINERS = ("sum", "mean", "min", "max", "count")
WILDCARD = "ALL"


def id_feature(t: Translation, f: FgFeature) -> Native:
    """Ids of a text or number; of a map if weighted."""
    whole = refuse_float_id(f)
    other = t.pipeline.get(f.name)
    weighted = f.flag("weighted") or bool(f.text_or("kv_separator", "")) or bool(other and other.weighted)
    if weighted:
        types: tuple[T, ...] = (T.STRING_FLOAT_MAP,)
    elif not f.several(f.flag("is_multi", True)):
        types = ONE_WHOLE if whole else ONE_TEXT
    else:
        types = MANY_WHOLE if whole else MANY_TEXTS
    native: Native = {"op": "id", "in": [t.fields.read(f.name, f.text("expression"), types)]}
    native |= {"weighted": True} if weighted else {}
    return native | text_tail(t, f, f.flag("need_prefix", t.dialect.need_prefix))


def raw_feature(t: Translation, f: FgFeature) -> Native:
    """A number or vector."""
    dim, whole = width(f), value_kind(f.name, f.text_or("value_type", "")) == "int"
    one, many = (WHOLE_NUMBER, WHOLE_NUMBERS) if whole else (NUMBER, NUMBERS)
    ref = t.fields.read(f.name, f.text("expression"), many if dim > 1 else one)
    return {"op": "raw", "in": [ref]} | number_tail(t, f, dim)


def combo_feature(t: Translation, f: FgFeature) -> Native:
    """Every combination, joined by `_`."""
    refuse_float_id(f)
    if f.has("num_buckets"):
        raise f.error("num_buckets: crossed texts are no numbers", "set hash_bucket_size")
    types = MANY_TEXTS if f.several(True) else ONE_TEXT
    refs = [t.fields.read(f.name, ref, types) for ref in f.texts("expression")]
    return {"op": "combo", "in": refs} | text_tail(t, f, f.flag("need_prefix", t.dialect.need_prefix))


def combine_feature(t: Translation, f: FgFeature) -> Native:
    """Several values to one number, which may be an id."""
    mapped = f.has("value_map")
    ref = t.fields.read(f.name, f.text("expression"), (T.STRING_LIST, T.STRING) if mapped else (*NUMBERS, *NUMBER))
    native: Native = {"op": "combine", "in": [ref]} | ({"valueMap": f.table("value_map")} if mapped else {})
    native["combiner"] = combiner(f)
    if f.has("num_buckets"):
        if f.has("boundaries"):
            raise f.error("has both num_buckets and boundaries", "a feature has one bucketizer: remove one")
        native["encode"] = {"identityBuckets": f.whole("num_buckets", 0)}
    sparse = f.has("num_buckets") or f.has("boundaries")
    if sparse and not f.has("default_value"):
        raise f.error(
            "has buckets and no default_value", 'write default_value: "" for no id, or the number it stands for'
        )
    return native | number_tail(t, f)


def combiner(f: FgFeature, none: bool = False) -> str:
    """Aggregation of several numbers; an empty one keeps them apart."""
    name = f.text_or("combiner", "sum").lower()
    if name == "" and none:
        return "none"
    name = "mean" if name == "avg" else name or "sum"
    if name not in COMBINERS:
        raise f.error(f"combiner '{name}' is not supported", "known: sum, mean, min, max, count")
    return name


def discrete(t: Translation, f: FgFeature) -> bool:
    """Whether lookup and match make texts: as they say, or because only texts have such a bucketizer."""
    encoders = [key for key in ENCODERS if f.has(key)]
    if encoders and f.keys.get("needDiscrete") is False:
        raise f.error(f"needDiscrete: false, and {encoders[0]} of texts", "numbers are put into buckets by boundaries")
    found = f.flag("needDiscrete", t.dialect.need_discrete or bool(encoders))
    if found and f.has("boundaries"):
        raise f.error("makes texts, and has boundaries", "set needDiscrete: false to look up numbers")
    if f.flag("needWeighting"):
        raise f.error(
            "needWeighting: true is not supported", "set it to false, or make a weighted id_feature of the map"
        )
    return found


def lookup_feature(t: Translation, f: FgFeature) -> Native:
    """What a map has under one or several keys."""
    texts, dim = discrete(t, f), width(f) if f.whole("value_dim", 1) else 1
    vector = dim > 1 and not texts
    single = (vector and combiner(f, none=True) == "none") or (texts and f.keys.get("value_dim") == 1)
    if f.flag("needKey") and not texts and not t.dialect.need_key:  # EasyRec's numbers ignore its default, true
        raise f.error("needKey: true, and looks up numbers", "set needDiscrete: true to make texts")
    kind = T.STRING_STRING_MAP if texts else T.STRING_FLOATS_MAP if vector else T.STRING_FLOAT_MAP
    native: Native = {
        "op": "lookup",
        "map": t.fields.read(f.name, f.text("map"), (kind,)),
        "key": t.fields.read(f.name, f.text("key"), ONE_TEXT if single else MANY_TEXTS),
    }
    if texts:
        native |= {"show": ["key"]} if f.flag("needKey", t.dialect.need_key) else {}
        return native | text_tail(t, f, f.flag("need_prefix", t.dialect.need_prefix))
    return native | _combined(f, vector) | number_tail(t, f, dim)


def _combined(f: FgFeature, vector: bool = False) -> Native:
    """An empty combiner keeps numbers apart where there are boundaries; elsewhere there is one number anyway."""
    name = combiner(f, none=True)
    if name != "none":
        return {"combiner": name}
    if vector:
        return {"combiner": "sum"}
    if not f.has("boundaries"):
        raise f.error("has an empty combiner, and no boundaries", "say which combiner makes one number of several")
    return {"combiner": "none"}


def match_feature(t: Translation, f: FgFeature) -> Native:
    """What a map of maps has under two keys."""
    kind = f.text_or("matchType", "hit").lower()
    if kind not in ("hit", "multihit"):
        raise f.error(f"matchType '{kind}' is not supported", "known: hit, multihit")
    texts = discrete(t, f)
    native: Native = {"op": "match"}
    single = texts and not f.several(True)
    types = (T.NESTED_STRING_MAP,) if texts else (T.NESTED_FLOAT_MAP,)
    native["map"] = t.fields.read(f.name, f.text("user"), types)
    for key, name in (("category", "pkey"), ("item", "skey")):
        if f.text(key) != WILDCARD:
            native[name] = t.fields.read(f.name, f.text(key), ONE_TEXT if single else MANY_TEXTS)
        elif single:
            raise f.error(f"value_dim is 1, and {key} ALL may match several", "set value_dim: 0")
        elif kind == "hit":
            where = "outer" if name == "pkey" else "inner"
            t.notes.append(
                f"feature '{f.name}': {key} ALL matches every {where} key; upstream hit finds the key 'ALL' only"
            )
    shown = next((key for key in ("show_category", "show_item") if f.flag(key)), None)
    if shown is not None and not texts:
        raise f.error(f"{shown}: true, and looks up numbers", "set needDiscrete: true to make texts")
    if not texts:
        several = len(native) < 4 or f.has("combiner")
        return native | (_combined(f) if several else {}) | number_tail(t, f)
    pairs = [("show_category", "pkey"), ("show_item", "skey")]
    keys = [name for key, name in pairs if f.flag(key, t.dialect.show_keys)]
    return native | ({"show": keys} if keys else {}) | text_tail(t, f, _match_prefix(t, f))


def _match_prefix(t: Translation, f: FgFeature) -> bool:
    """PyFG prefixes what it hashes and not what is a number; for vocabularies nothing is documented."""
    if f.has("need_prefix"):
        return f.flag("need_prefix")
    if t.dialect.name is DialectName.PYFG and any(f.has(key) for key in ENCODERS if key.startswith("vocab")):
        raise f.error(f"whether its words begin with '{f.name}_' is not documented", "set need_prefix: true or false")
    return t.dialect.match_prefix and not (t.dialect.name is DialectName.PYFG and f.has("num_buckets"))


def expr_feature(t: Translation, f: FgFeature) -> Native:
    """An expression over fields."""
    names = f.texts("variables")
    text, dim = f.text("expression"), width(f) if f.whole("value_dim", 0) else 1
    vectors = whole_vectors(f, text, [name.rpartition(":")[2] for name in names])
    refs = [
        t.fields.read(f.name, name, WHOLE_NUMBERS[::-1] if dim > 1 or index in vectors else WHOLE_NUMBER[::-1])
        for index, name in enumerate(names)
    ]
    native: Native = {"op": "expr", "in": refs, "expr": text}
    native |= {"fillMissing": True} if f.flag("fill_missing") else {}
    return native | number_tail(t, f, dim)


def whole_vectors(f: FgFeature, text: str, variables: list[str]) -> set[int]:
    """Which variables an expression reads as whole vectors, by their number."""
    try:
        program = parse_expression(text, variables)
    except ExpressionError as error:
        raise f.error(error.problem, error.hint) from error
    arguments = [argument for code, argument in program.code if code >= Code.LENGTH]
    return {index for argument in arguments for index in (argument % 256, argument // 256)}


def overlap_feature(t: Translation, f: FgFeature) -> Native:
    """How much of a query is in a title."""
    method = f.text("method")
    known = [one.value for one in OverlapMethod]
    refs = {key: t.fields.read(f.name, f.text(key), (T.STRING_LIST, T.STRING)) for key in ("query", "title")}
    if t.dialect.name is DialectName.RTP:
        return {"op": "overlap"} | refs | _old_ratio(t, f, method)
    if method not in known:
        raise f.error(f"method '{method}' is not supported", did_you_mean(method, known, "known"))
    if method.endswith("_dist"):
        t.notes.append(
            f"feature '{f.name}': {method} of a title with one word of the query is the title's length; upstream's "
            "is not documented"
        )
    return {"op": "overlap"} | refs | {"method": method} | number_tail(t, f)


def _old_ratio(t: Translation, f: FgFeature, method: str) -> Native:
    """In fg_lite it is the whole part of 10 times the ratio; the small addend keeps exact tenths exact."""
    if f.flag("needDiscrete", t.dialect.need_discrete):
        hint = "set needDiscrete: false, with method query_common_ratio"
        raise f.error(f"makes texts such as '{f.name}_5'", hint)
    if method != "query_common_ratio":
        hint = "only query_common_ratio means the same here; for the others import with --dialect pyfg and train anew"
        raise f.error(f"method '{method}' of dialect rtp has no exact counterpart", hint)
    if f.has("normalizer"):
        raise f.error("has a normalizer after the rounding of dialect rtp", "remove it")
    tail = {"method": method, "normalizer": {"kind": "expression", "expr": "floor(x * 10 + 0.000001)"}}
    return tail | number_tail(t, f)


def kv_dot_product(t: Translation, f: FgFeature) -> Native:
    """The dot product of two maps; a default of "" is the number 0 here (a vector of TorchEasyRec shows it)."""
    types = (T.STRING_FLOAT_MAP, T.STRING_LIST)
    refs = {key: t.fields.read(f.name, f.text(key), types) for key in ("query", "document")}
    return {"op": "kv_dot"} | refs | number_tail(t, f, empty="0")


TRANSLATORS: dict[str, Callable[[Translation, FgFeature], Native]] = {
    "id_feature": id_feature,
    "raw_feature": raw_feature,
    "combo_feature": combo_feature,
    "combine_feature": combine_feature,
    "lookup_feature": lookup_feature,
    "match_feature": match_feature,
    "expr_feature": expr_feature,
    "overlap_feature": overlap_feature,
    "kv_dot_product": kv_dot_product,
    "bool_mask_feature": bool_mask,
    "tokenize_feature": tokenize,
    "text_normalizer": text_normalizer,
    "regex_replace_feature": regex_replace,
    "custom_feature": custom,
}
