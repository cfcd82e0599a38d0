"""Random specs: every operator, features of features, valid by construction, so that no case is thrown away.

As every output is computed apart from the others, the one that differs says which feature to look at.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from featuregen.plan import Plan
from tests.unit.featuregen.cases import plan_of
from tests.unit.featuregen.random_options import Spec
from tests.unit.featuregen.random_rows import SOURCES

FILES = Path(__file__).with_name("files")
_ID_TYPES = ("string", "int", "list<string>", "list<int>")
_NUMBER_TYPES = ("int", "float", "list<int>", "list<float>")


def _id(spec: Spec) -> None:
    if spec.chance(0.3):
        spec.add("id", None, [], in_=[spec.field("map<string,float>")], weighted=True, **spec.texts())
        return
    ref = spec.field(*_ID_TYPES)
    spec.add("id", spec.type_of(ref), [ref], in_=[ref], **spec.texts())


def _combo(spec: Spec) -> None:
    refs = spec.fields_of(2, 3, *_ID_TYPES)
    mode = spec.maybe(["concat", "mix"])
    options = spec.texts(only_hash=True, prefix=mode != "mix")
    spec.add("combo", None if mode == "mix" else "list<string>", refs, in_=refs, combo=mode, **options)


def _raw(spec: Spec) -> None:
    ref, dim = spec.field("int", "float"), 1
    if spec.chance():
        ref, dim = spec.field("list<int>", "list<float>"), spec.some([1, 2, 3])
    given = dim if spec.type_of(ref).startswith("list") else None
    spec.add("raw", spec.number_type(dim), [ref], in_=[ref], dim=given, **spec.numbers(dim))


def _combine(spec: Spec) -> None:
    combiner = spec.maybe(["sum", "mean", "min", "max", "count"])
    values = {"a": 1.5, "b": 2, "1": -0.25} if spec.chance() else None
    ref = spec.field("string", "list<string>") if values else spec.field(*_NUMBER_TYPES)
    options = spec.numbers()
    if spec.chance():
        options |= {"boundaries": None, "encode": {"identityBuckets": 5}, "default": spec.maybe([0, 2.5])}
    spec.add("combine", "float", [ref], in_=[ref], valueMap=values, combiner=combiner, **options)


_UNARY = "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh log2 log10 log ln exp sqrt sign abs rint floor"
UNARY = [*_UNARY.split(), "ceil", "trunc", "round", "sigmoid", "isnan", "-", "!"]
BINARY = "|| && | & < <= == != >= > + - * / ^".split()
VECTOR = "len l2_norm squared_norm std_dev pop_std_dev variance pop_variance reduce_min reduce_max reduce_sum".split()
VECTOR += ["reduce_mean", "reduce_prod"]


FORMS = ["({} ? {} : {})", "min({}, {})", "max({}, {})", "sum({}, {}, {})", "avg({}, {})", "mod({}, {})"]
FORMS += [
    "mod({} * 1e12, 1)",
    "round({} * 2)",
    "roundp({}, 1)",
    "haversine({}, {}, 3, {})",
    "sphere_dist({}, {}, {}, 4)",
]


def _expression(spec: Spec, names: Sequence[str], vectors: bool, depth: int = 0) -> str:
    """A random expression over the names; a text, so that the parser is in the line too."""
    shape = spec.some(
        ["name", "name", "number"] if depth > 2 else ["name", "number", "unary", "binary", "binary", "more"]
    )
    if shape == "name" and names:
        name = spec.some(names)
        if vectors and spec.chance(0.3):
            if spec.chance():
                return f"{spec.some(VECTOR)}({name})"
            return f"{spec.some(['dot', 'euclid_dist', 'corr'])}({name}, {spec.some(names)})"
        return str(name)
    if shape in ("name", "number"):
        return str(spec.some(["0.5", "2", "3.25", "1e3", "_pi", "0"]))

    def part() -> str:
        return _expression(spec, names, vectors, depth + 1)

    if shape == "unary":
        return f"{spec.some(UNARY)}({part()})"
    if shape == "binary":
        return f"({part()} {spec.some(BINARY)} {part()})"
    form = spec.some(FORMS)
    return str(form.format(*(part() for _ in range(form.count("{}")))))


def _expr(spec: Spec) -> None:
    refs, dim = spec.fields_of(1, 3, *(_NUMBER_TYPES if spec.chance() else ("int", "float"))), spec.some([1, 1, 2, 3])
    text = _expression(spec, [ref.split(".")[1] for ref in refs], vectors=True)
    fill = spec.chance() or None
    spec.add("expr", spec.number_type(dim), refs, in_=refs, expr=text, dim=dim, fillMissing=fill, **spec.numbers(dim))


def _overlap(spec: Spec) -> None:
    refs = [spec.field("list<string>") if spec.chance(0.8) else spec.field("string") for _ in range(2)]
    ways = ["query_common_ratio", "title_common_ratio", "is_contain", "is_equal", "index_of"]
    ways += [f"proximity_{which}" for which in ("min_cover", "min_dist", "max_dist", "avg_dist")]
    spec.add("overlap", "float", refs, query=refs[0], title=refs[1], method=spec.some(ways), **spec.numbers())


def _lookup(spec: Spec) -> None:
    kind = spec.some(["map<string,float>", "map<string,string>", "map<string,list<float>>"])
    refs = [spec.field(kind), spec.field(*_ID_TYPES)]
    if kind == "map<string,string>":
        spec.add("lookup", "list<string>", refs, map=refs[0], key=refs[1], show=spec.maybe([["key"]]), **spec.texts())
        return
    dim = spec.some([1, 2, 3]) if kind == "map<string,list<float>>" else None
    combiners = ["sum", "mean", "min", "max"] + (["count", "none"] if dim is None else [])
    combiner, options = spec.maybe(combiners), spec.numbers(dim or 1)
    if combiner == "none":
        options["boundaries"] = spec.boundaries()
    value = None if combiner == "none" else spec.number_type(dim or 1)
    spec.add("lookup", value, refs, map=refs[0], key=refs[1], dim=dim, combiner=combiner, **options)


def _match(spec: Spec) -> None:
    kind = spec.some(["map<string,map<string,float>>", "map<string,map<string,string>>"])
    pkey, skey = (spec.field(*_ID_TYPES) if spec.chance() else None for _ in range(2))
    table = spec.field(kind)
    refs = [ref for ref in (table, pkey, skey) if ref]
    if kind == "map<string,map<string,string>>":
        show = spec.some([[], ["pkey"], ["skey"], ["skey", "pkey"]])
        spec.add("match", "list<string>", refs, map=table, pkey=pkey, skey=skey, show=show, **spec.texts())
        return
    combiner, options = spec.maybe(["sum", "mean", "min", "max", "count", "none"]), spec.numbers()
    if combiner == "none":
        options["boundaries"] = spec.boundaries()
    value = None if combiner == "none" else "float"
    spec.add("match", value, refs, map=table, pkey=pkey, skey=skey, combiner=combiner, **options)


def _kv_dot(spec: Spec) -> None:
    refs = [spec.field("map<string,float>", "list<string>") for _ in range(2)]
    spec.add("kv_dot", "float", refs, query=refs[0], document=refs[1], **spec.numbers())


def _bool_mask(spec: Spec) -> None:
    value, mask = spec.field(*_ID_TYPES), spec.field(*_ID_TYPES)
    result = "list<int>" if "int" in spec.type_of(value) else "list<string>"
    spec.add("bool_mask", result, [value, mask], in_=[value, mask], **spec.texts())


def _tokenize(spec: Spec) -> None:
    ref, form = spec.field("string"), spec.maybe(["id", "text"])
    result = "list<string>" if form == "text" else "list<int>"
    spec.add("tokenize", result, [ref], in_=[ref], tokenizer="pieces", tokens=form, **spec.texts())


def _text_normalizer(spec: Spec) -> None:
    ref, case = spec.field("string"), spec.maybe(["lower", "upper"])
    others = ["half_width", "simplified", "filter", "remove_space", "split_chars"]
    steps = [step for step in others if spec.chance()] + ([case] if case else [])
    stop_chars = spec.maybe(["a中 "]) if "filter" in steps else None
    result = "list<string>" if "split_chars" in steps else "string"
    longest = spec.maybe([1, 3])
    options = spec.texts()
    spec.add(
        "text_normalizer", result, [ref], in_=[ref], steps=steps, stopChars=stop_chars, maxLength=longest, **options
    )


PATTERNS = [("[0-9]+", None), ("^(.)", r"<\1\1>"), ("a|x+", "-"), ("x*", "_"), ("(a)|(b)", r"\2\1"), (r"\s", "")]
PATTERNS += [("é.$", "e"), (r"\b", "|"), ("(?s)(.{2}).", r"\1"), ("[^a-c1]", "")]


def _regex_replace(spec: Spec) -> None:
    ref = spec.field("string", "list<string>")
    pattern, replacement = spec.some(PATTERNS)
    options = {"pattern": pattern, "replacement": replacement} | spec.texts()
    spec.add("regex_replace", spec.type_of(ref), [ref], in_=[ref], **options)


def _str_slice(spec: Spec) -> None:
    ref, start, stop = spec.field("string", "list<string>"), spec.some([0, 1, -2, -50]), spec.maybe([0, 1, 3, -1, 60])
    spec.add("str_slice", spec.type_of(ref), [ref], in_=[ref], start=start, stop=stop, **spec.texts())


def _str_format(spec: Spec) -> None:
    refs = spec.fields_of(1, 3, "string", "int")
    text = "{{é}}" + "".join(f"{{{ref.split('.')[1]}}}:" for ref in refs)
    spec.add("str_format", "string", refs, in_=refs, format=text, **spec.texts())


def _custom(spec: Spec) -> None:
    refs = [spec.field("string") for _ in range(2)]
    parameters = {"encoding": "latin"} if spec.chance() else None
    options = spec.numbers()
    spec.add("custom", "float", refs, in_=refs, udf="edit_distance", type="float", parameters=parameters, **options)


def _actions(spec: Spec) -> list[str] | None:
    found: list[str] | None = spec.maybe([["click"], ["buy", "click"]])
    return found


AGGREGATES = [None, "count", "sum", "avg", "min", "max", "last"]


def _window(spec: Spec) -> None:
    by, agg = spec.maybe(["item.iid", "item.xs", "item.xi"]), spec.some(AGGREGATES)
    windows = spec.some([["1s"], ["1s", "2s"], ["500ms", "2s", "10s"]])
    value = None if agg in (None, "count") else spec.some(["event.paid", "event.qty", "item.xf", "item.xi"])
    default = spec.maybe([-1, 0.5]) if agg in ("avg", "min", "max", "last") else None
    options = {"by": by, "agg": agg, "value": value, "default": default, "windows": windows, "actions": _actions(spec)}
    spec.add("window", spec.number_type(len(windows)), [by] if by else [], behavior="log", **options)


def _element_numbers(spec: Spec, ids_only: bool = False) -> dict[str, Any]:
    """Options of a field of numbers; one of them is given, which an int needs."""
    options = {"normalizer": spec.normalizer(), "default": spec.maybe([0.5, 2])}
    if ids_only or spec.chance():
        options["boundaries"] = spec.boundaries()
    return options


def _sequence_default(spec: Spec, options: dict[str, Any]) -> dict[str, Any]:
    """A sequence's ids always have a default, which an encoder must take."""
    return {k: v for k, v in options.items() if v is not None and not (k == "default" and v == "")}


def _sequence_field(spec: Spec, refs: dict[str, str], variables: dict[str, str], times: list[str]) -> dict[str, Any]:
    if variables and spec.chance():
        chosen = spec.subset(sorted(variables), 0, 2)
        names = [ref.split(".")[1] for ref in chosen] + times
        return {"expr": _expression(spec, names, vectors=False), "vars": chosen} | _element_numbers(spec)
    ref = spec.some(sorted(refs))
    kind = refs[ref]
    if kind == "list<float>":
        return {"in": ref, "dim": spec.some([1, 2]), "normalizer": spec.normalizer(), "default": spec.maybe([0.5])}
    if kind == "float" or (kind == "int" and spec.chance()):
        return {"in": ref} | _element_numbers(spec, ids_only=kind == "int")
    return {"in": ref} | _sequence_default(spec, spec.texts())


def _sequence(spec: Spec) -> None:
    behavior = spec.chance()
    scalars = {ref: kind for ref, kind, user in spec.fields if user and kind in ("int", "float")}
    if behavior:
        refs = {f"item.{name}": SOURCES["item"]["fields"][name] for name in ("xs", "xi", "xf", "xls", "xlf")}
        own = {f"event.{name}": kind for name, kind in SOURCES["behavior"]["log"]["fields"].items()}
        refs |= own | {"item.iid": "string"}
        variables = scalars | {ref: kind for ref, kind in refs.items() if kind in ("int", "float")}
    else:
        refs = {ref: kind[5:-1] for ref, kind, user in spec.fields if user and kind.startswith("list<")}
        variables = scalars | {ref: kind for ref, kind in refs.items() if kind in ("int", "float")}
    first = _sequence_field(spec, refs, {}, [])
    times = ["now", "ts"] if behavior else ["now"]
    others = [_sequence_field(spec, refs, variables, times) for _ in range(spec.some([0, 1, 2]))]
    fields = [
        {name: value for name, value in field.items() if value is not None} | {"name": f"e{index}"}
        for index, field in enumerate([first, *others])
    ]
    log = {"behavior": "log", "actions": _actions(spec)} if behavior else {}
    pad = spec.chance() or None
    spec.add("sequence", None, [], length=spec.some([1, 2, 4]), padEmpty=pad, fields=fields, **log)


OPERATORS: dict[str, Callable[[Spec], None]] = {
    "id": _id,
    "raw": _raw,
    "combo": _combo,
    "combine": _combine,
    "lookup": _lookup,
    "match": _match,
    "expr": _expr,
    "overlap": _overlap,
    "kv_dot": _kv_dot,
    "bool_mask": _bool_mask,
    "tokenize": _tokenize,
    "text_normalizer": _text_normalizer,
    "regex_replace": _regex_replace,
    "str_slice": _str_slice,
    "str_format": _str_format,
    "custom": _custom,
    "window": _window,
    "sequence": _sequence,
}


_FILES = {path.stem: {"sha256": sha256(path.read_bytes()).hexdigest()} for path in sorted(FILES.iterdir())}


def random_plan(rng: Random, operators: Sequence[str]) -> tuple[Plan, Spec]:
    """A plan of two to six features, of which later ones may read earlier ones; and their spec."""
    spec = Spec(rng)
    for _ in range(rng.randint(2, 6)):
        OPERATORS[rng.choice(operators)](spec)
    used = {name: file for name, file in _FILES.items() if name in repr(spec.features)}
    return plan_of(SOURCES, spec.features, rng.choice(["farm64", "std64"]), files=used), spec
