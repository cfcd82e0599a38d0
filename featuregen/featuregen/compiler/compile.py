"""Compiles a feature spec to a plan: every mistake that can be found without data is found here, once, by name.

Pure Python, because the operator runs it at `kubectl apply` time and its image has neither NumPy nor numba. The result
is data (`featuregen.plan`): one operation for each output, split into user, item and cross sides.
"""

from collections.abc import Callable

from featuregen.compiler.encoders import collect_encoders
from featuregen.compiler.ids import compile_combo, compile_id
from featuregen.compiler.inputs import Compilation, check_sources
from featuregen.compiler.maps import compile_lookup, compile_match
from featuregen.compiler.numbers import compile_combine, compile_expr, compile_kv_dot, compile_overlap, compile_raw
from featuregen.compiler.operators import check_fields
from featuregen.compiler.references import reading_order, references
from featuregen.compiler.sequences import compile_sequence
from featuregen.compiler.texts import (
    compile_bool_mask,
    compile_custom,
    compile_regex_replace,
    compile_str_format,
    compile_str_slice,
    compile_text_normalizer,
    compile_tokenize,
)
from featuregen.compiler.windows import compile_window
from featuregen.errors import FeatureError
from featuregen.plan import Input, Operation, Output, Plan, explain_difference
from featuregen.sources import FieldType
from featuregen.spec import Feature, FeatureSpec, Op

__all__ = ["Input", "Output", "Plan", "compile_plan", "explain_difference"]

_COMPILERS: dict[Op, Callable[[Compilation, Feature], list[Operation]]] = {
    Op.ID: compile_id,
    Op.RAW: compile_raw,
    Op.COMBO: compile_combo,
    Op.COMBINE: compile_combine,
    Op.LOOKUP: compile_lookup,
    Op.MATCH: compile_match,
    Op.EXPR: compile_expr,
    Op.OVERLAP: compile_overlap,
    Op.KV_DOT: compile_kv_dot,
    Op.BOOL_MASK: compile_bool_mask,
    Op.TOKENIZE: compile_tokenize,
    Op.TEXT_NORMALIZER: compile_text_normalizer,
    Op.REGEX_REPLACE: compile_regex_replace,
    Op.STR_FORMAT: compile_str_format,
    Op.STR_SLICE: compile_str_slice,
    Op.CUSTOM: compile_custom,
    Op.SEQUENCE: compile_sequence,
    Op.WINDOW: compile_window,
}
_SOURCES = ("user", "item", "context", "behavior", "now")


def compile_plan(spec: FeatureSpec) -> Plan:
    """Returns the plan of a spec.

    Raises:
        FeatureError: naming the feature, what is wrong and how to mend it.
    """
    check_sources(spec)
    _check_names(spec)
    for feature in spec.list:
        check_fields(feature)
    read = frozenset(name for feature in spec.list for name in references(feature))
    compilation = Compilation(spec, read)
    ordered = reading_order(spec)
    collect_encoders(compilation)
    made = {feature.name: _COMPILERS[feature.op](compilation, feature) for feature in ordered}
    operations = [operation for feature in spec.list for operation in made[feature.name]]
    _check_outputs(operations)
    compilation.note("now", FieldType.INT)
    inputs = sorted(compilation.columns.values(), key=lambda i: (_SOURCES.index(i.name.split(".")[0]), i.name))
    plan = Plan(
        hash=spec.hash.value,
        operations=tuple(operations),
        inputs=tuple(inputs),
        behaviors=dict(sorted(compilation.behaviors.items())),
        derivations=tuple(compilation.derivations),
    )
    for name in sorted(spec.files.keys() - {file.name for file in plan.files}):
        raise FeatureError(None, f"no feature reads the file '{name}'", "remove it from files")
    return plan


def _check_names(spec: FeatureSpec) -> None:
    seen: set[str] = set()
    for feature in spec.list:
        if feature.name in seen:
            raise FeatureError(feature.name, "two features have this name", "names are unique: rename one of them")
        seen.add(feature.name)


def _check_outputs(operations: list[Operation]) -> None:
    if not operations:
        raise FeatureError(None, "every feature is a stub", "remove stub from those that the model reads")
    taken: dict[str, str] = {}
    for operation in operations:
        name = operation.output.name
        if name in taken:
            raise FeatureError(
                operation.output.feature,
                f"its output '{name}' has the name of an output of '{taken[name]}'",
                "rename one",
            )
        taken[name] = operation.output.feature
