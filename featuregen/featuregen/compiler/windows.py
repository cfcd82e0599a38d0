"""Compiles window: counters and other aggregates over a behaviour's events."""

from dataclasses import replace

from featuregen.compiler.inputs import NUMBER, TEXT, Compilation, common_side, read_behavior, read_event, read_field
from featuregen.compiler.operators import options
from featuregen.compiler.options import number_defaults
from featuregen.compiler.tails import value_output
from featuregen.errors import FeatureError
from featuregen.plan import Operation, Side
from featuregen.sources import FieldType, duration_ms
from featuregen.spec import Feature, WindowAgg

_OF_NOTHING = (WindowAgg.COUNT, WindowAgg.SUM)
"""Aggregates that are 0 where there is no event; the others are missing."""


def compile_window(compilation: Compilation, feature: Feature) -> list[Operation]:
    """One number for each window, of events with now - w <= ts < now."""
    behavior, agg = read_behavior(compilation, feature), feature.agg or WindowAgg.COUNT
    windows = _windows(compilation, feature)
    side: Side = "user"
    columns: tuple[str, ...] = ()
    if feature.by is not None:
        if not feature.by.startswith("item."):
            hint = "an event knows its item: name an item field"
            raise FeatureError(feature.name, f"by '{feature.by}' is no item field", hint)
        hint = "use a field with one text or whole number"
        event = read_event(compilation, feature, feature.by, TEXT, "by", hint)
        candidate = read_field(compilation, feature.name, feature.by, TEXT, "by", hint)
        columns, side = (event.column, candidate.column), common_side((event, candidate))
    defaults = number_defaults(feature, len(windows))
    if defaults is not None and agg in _OF_NOTHING:
        raise FeatureError(
            feature.name, f"'default' has no meaning for {agg.value}", "without events it is 0: remove it"
        )
    value = Operation(
        replace(value_output(feature, side), width=len(windows)),
        "window",
        columns,
        dim=len(windows),
        default_numbers=defaults,
        method=agg.value,
        value_column=_value_column(compilation, feature, agg),
        behavior=behavior.name,
        actions=tuple(feature.actions),
        windows_ms=windows,
    )
    if feature.name in compilation.read_features:
        compilation.derive(value, FieldType.FLOAT if len(windows) == 1 else FieldType.FLOAT_LIST)
    if feature.stub:
        return []
    zeros = None if agg in _OF_NOTHING else defaults or (0.0,) * len(windows)
    return [replace(value, output=replace(value.output, kind="dense"), default_numbers=zeros)]


def _windows(compilation: Compilation, feature: Feature) -> tuple[int, ...]:
    windows = tuple(duration_ms(text) for text in feature.windows)
    age = compilation.spec.sources.behavior[feature.behavior or ""].max_age
    for index, (text, window) in enumerate(zip(feature.windows, windows, strict=True)):
        if window <= 0:
            raise FeatureError(feature.name, f"window {text} is empty", "give a positive duration such as 1h")
        if window > duration_ms(age):
            raise FeatureError(
                feature.name,
                f"window {text} is longer than maxAge {age} of behavior '{feature.behavior}'",
                f"older events are not kept: raise sources.behavior.{feature.behavior}.maxAge or drop the window",
            )
        if index and window <= windows[index - 1]:
            problem = f"windows do not increase: {feature.windows[index - 1]}, {text}"
            raise FeatureError(feature.name, problem, "sort them and remove doubles")
    return windows


def _value_column(compilation: Compilation, feature: Feature, agg: WindowAgg) -> str:
    if agg is WindowAgg.COUNT:
        if feature.value is not None:
            raise FeatureError(
                feature.name, "'value' has no meaning for agg: count", "remove it, or choose sum, avg, min, max or last"
            )
        return ""
    if feature.value is None:
        raise FeatureError(feature.name, f"agg: {agg.value} needs 'value'", options(feature))
    return read_event(compilation, feature, feature.value, NUMBER, "value", "use a field with one number").column
