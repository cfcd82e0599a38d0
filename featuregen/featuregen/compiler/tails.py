"""The two tails: how the texts, or the numbers, that an operator makes become an output of the plan.

An operator's compiler builds the operation that makes the value. Here it becomes a derived column, if other features
read it (or if it exists as a column only), and with encoder, prefix and default, or with boundaries, an output.
"""

from collections.abc import Sequence
from dataclasses import replace

from featuregen.compiler.encoders import check_default, check_prefix, choose_encoder
from featuregen.compiler.inputs import Compilation
from featuregen.compiler.options import boundaries, number_defaults, rescale, text_default
from featuregen.errors import FeatureError
from featuregen.plan import Operation, Output, Side
from featuregen.sources import FieldType
from featuregen.spec import Feature


def value_output(feature: Feature, side: Side) -> Output:
    """Returns what a value is written to before a tail says more."""
    return Output(feature.name, feature.name, "value", 0, 0, None, side, 0)


def text_outputs(
    compilation: Compilation,
    feature: Feature,
    value: Operation,
    kind: FieldType | None,
    apart: bool = False,
    only: Sequence[str] = (),
) -> list[Operation]:
    """Texts: prefix, encoder, default.

    Args:
        compilation: notes the derived column.
        feature: the feature.
        value: what makes the texts.
        kind: type of the derived column; None: there is none.
        apart: the value exists as a derived column only, and ids are made of that.
        only: kinds of encoders that the operator takes; all if empty.
    """
    if kind is not None and (apart or feature.name in compilation.read_features):
        compilation.derive(value, kind)
    if feature.stub:
        if feature.default is not None:
            raise FeatureError(
                feature.name,
                "'default' has no meaning for a stub that makes texts",
                "give it to the features that read it",
            )
        return []
    encoder = choose_encoder(compilation, feature.name, feature.name, feature.encode, feature.like)
    if only and encoder.kind not in only:
        hint = "give encode: {hashBuckets: n}"
        raise FeatureError(feature.name, f"{feature.op.value} cannot use {encoder.kind} encoding", hint)
    check_prefix(feature.name, feature.prefix, encoder)
    default = text_default(feature.name, feature.default)
    check_default(feature.name, default, encoder)
    output = replace(value.output, kind="sparse", buckets=encoder.buckets, table=encoder.table)
    if apart:
        value = Operation(output, "id", (f"feature.{feature.name}",))
    return [replace(value, output=output, encoder=encoder, prefix=feature.prefix or "", default_text=default)]


def number_outputs(
    compilation: Compilation, feature: Feature, value: Operation, width: int = 1, apart: FieldType | None = None
) -> list[Operation]:
    """Numbers: normalizer, default, and boundaries or a whole id (combine) or float32.

    A missing number stays missing unless there is a default; a dense output has 0 for it. `apart`: the value exists as
    a derived column of this type only.
    """
    name, limits = feature.name, boundaries(feature.name, feature.boundaries)
    defaults = number_defaults(feature, width)
    value = replace(
        value,
        output=replace(value.output, width=width),
        dim=width,
        rescale=rescale(name, feature.normalizer),
        default_numbers=defaults,
    )
    if value.combiner == "none":
        if limits is None and not feature.stub:
            hint = "give boundaries: each number is an id of its own; or choose sum, mean, min, max or count"
            raise FeatureError(name, "combiner none keeps several numbers, and has no boundaries", hint)
    elif apart or name in compilation.read_features:
        compilation.derive(value, apart or (FieldType.FLOAT if width == 1 else FieldType.FLOAT_LIST))
    if feature.stub:
        return []
    if apart:  # rescale and default are in the column already
        value = Operation(value.output, "raw", (f"feature.{name}",), dim=width)
    if feature.encode is not None:
        return [_whole_ids(compilation, feature, value)]
    if limits is not None:
        output = replace(value.output, kind="sparse", width=0, buckets=len(limits) + 1, table=name)
        return [replace(value, output=output, boundaries=limits)]
    zeros = value.default_numbers or (0.0,) * width
    return [replace(value, output=replace(value.output, kind="dense"), default_numbers=zeros)]


def _whole_ids(compilation: Compilation, feature: Feature, value: Operation) -> Operation:
    """A number truncated to an id."""
    if feature.boundaries is not None:
        raise FeatureError(feature.name, "has both boundaries and encode", "remove one of them")
    encoder = compilation.encoders[feature.name]
    if encoder.kind != "identity":
        hint = "a number becomes an id by identityBuckets (it is truncated) or by boundaries"
        raise FeatureError(feature.name, f"{feature.op.value} cannot use {encoder.kind} encoding", hint)
    default = value.default_numbers[0] if value.default_numbers else 0.0
    if not 0 <= int(default) < encoder.buckets:
        hint = "choose a default inside identityBuckets"
        raise FeatureError(feature.name, f"default '{default:g}' is not in 0..{encoder.buckets - 1}", hint)
    output = replace(value.output, kind="sparse", width=0, buckets=encoder.buckets, table=encoder.table)
    return replace(value, output=output, encoder=encoder)
