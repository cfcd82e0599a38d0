"""Where every feature output lies in the one dense matrix that the network reads; pure, so the operator checks it too.

The network is a function of X float32[n, D] only: embeddings are pooled into X by our own kernels (`embed`), in
training and in serving alike, so the TensorFlow graph has one input, one trace, and no notion of ids. Columns, left to
right: the linear weights of the linear group, the embeddings of that group, all other embeddings, the dense values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from featuregen.compiler import Output, Plan
from featuregen.errors import did_you_mean
from kuberec_api.model import NetworkKind, RecModelSpec

LINEAR_GROUP = "wide"
_LINEAR_KINDS = (NetworkKind.DEEP_FM, NetworkKind.WIDE_AND_DEEP)


class NetworkError(ValueError):
    """A network that does not fit its features; names the group or feature and how to mend it."""


@dataclass(frozen=True)
class Table:
    """An embedding table: rows are float32[width], `[linear weight | embedding]` when `linear`, else the embedding."""

    name: str
    ordinal: int
    dim: int
    linear: bool

    @property
    def width(self) -> int:
        """Floats of a row without optimizer state."""
        return self.dim + self.linear


@dataclass(frozen=True)
class Slot:
    """One output's place in X: columns [column, column + width); the linear weight, if any, goes to `linear_column`.

    `mean` selects mean pooling (sequences), else sum; `table` is None for dense outputs.
    """

    output: str
    table: Table | None
    column: int
    width: int
    linear_column: int = -1
    mean: bool = False


@dataclass(frozen=True)
class Layout:
    """The columns of X and the tables that fill them.

    Attributes:
        slots: one for each used output, in column order.
        tables: the used tables by name.
        dimension: D, the number of columns of X.
        linear: number of linear columns; they are X[:, :linear].
        groups: for each network group the column runs [start, stop) of its outputs, embeddings and dense values.
        fm_fields: number of equally wide fields that lie at X[:, linear : linear + fm_fields * fm_dim].
    """

    slots: tuple[Slot, ...]
    tables: dict[str, Table]
    dimension: int
    linear: int
    groups: dict[str, tuple[tuple[int, int], ...]]
    fm_fields: int = 0
    fm_dim: int = 0
    sparse: tuple[Slot, ...] = field(default=())
    dense: tuple[Slot, ...] = field(default=())

    @property
    def widths(self) -> tuple[int, ...]:
        """The distinct row widths, ascending; a shard has one table store for each."""
        return tuple(sorted({t.width for t in self.tables.values()}))


def build_layout(spec: RecModelSpec, plan: Plan) -> Layout:
    """Lays the outputs of `plan` out for `spec.network`.

    Raises:
        NetworkError: if a group names an unknown feature or one without an input of one width, a linear group holds a
            dense feature, or DeepFM's `wide` group mixes embedding widths.
    """
    groups = _outputs_by_group(spec, plan)
    linear_outputs = groups.get(LINEAR_GROUP, []) if spec.network.kind in _LINEAR_KINDS else []
    for output in linear_outputs:
        if output.kind == "dense":
            raise NetworkError(
                f"network group '{LINEAR_GROUP}': feature '{output.feature}' is dense; give it `boundaries`, "
                "or name it only in group 'deep'"
            )
    used = {o.name for outputs in groups.values() for o in outputs}
    linear_names = {o.name for o in linear_outputs}
    outputs = sorted(
        (o for o in plan.outputs if o.name in used),
        key=lambda o: (o.kind == "dense", o.name not in linear_names),
    )
    tables = _tables(spec, plan, outputs, {o.table for o in linear_outputs if o.table})
    slots, column = [], len(linear_outputs)
    linear_columns = {name: i for i, name in enumerate(o.name for o in outputs if o.name in linear_names)}
    for output in outputs:
        table = tables[output.table] if output.table else None
        width = table.dim if table else output.width
        slots.append(
            Slot(output.name, table, column, width, linear_columns.get(output.name, -1), output.kind == "sequence")
        )
        column += width
    by_name = {s.output: s for s in slots}
    fm_fields, fm_dim = _fm_block(spec, [by_name[o.name] for o in linear_outputs])
    return Layout(
        slots=tuple(slots),
        tables=tables,
        dimension=column,
        linear=len(linear_outputs),
        groups={g: _runs([by_name[o.name] for o in outs]) for g, outs in groups.items()},
        fm_fields=fm_fields,
        fm_dim=fm_dim,
        sparse=tuple(s for s in slots if s.table),
        dense=tuple(s for s in slots if not s.table),
    )


def _outputs_by_group(spec: RecModelSpec, plan: Plan) -> dict[str, list[Output]]:
    by_feature: dict[str, list[Output]] = {}
    for output in plan.outputs:
        by_feature.setdefault(output.feature, []).append(output)
    groups = {}
    for group, features in spec.network.groups.items():
        for name in features:
            if name not in by_feature:
                problem, hint = "does not exist", did_you_mean(name, by_feature)
                if any(feature.name == name for feature in spec.features.list):
                    problem, hint = "is a stub", "a stub has no output: remove `stub`, or name what reads it"
                raise NetworkError(f"network group '{group}': feature '{name}' {problem}\n  {hint}")
            for output in by_feature[name]:
                _refuse_numbers(group, output)
        groups[group] = [o for name in features for o in by_feature[name]]
    if spec.network.kind in _LINEAR_KINDS:
        unknown = set(groups) - {LINEAR_GROUP, "deep"}
        if unknown or "deep" not in groups or LINEAR_GROUP not in groups:
            raise NetworkError(
                f"network {spec.network.kind.value} has the groups 'wide' and 'deep', got: {', '.join(sorted(groups))}"
            )
    return groups


def _refuse_numbers(group: str, output: Output) -> None:
    """Refuses a sequence of numbers: its rows differ in length, and only ids are pooled to one width."""
    if output.kind == "sequence" and not output.buckets:
        field = output.name.removeprefix(f"{output.feature}__")
        raise NetworkError(
            f"network group '{group}': field '{field}' of sequence '{output.feature}' is numbers, a network reads ids\n"
            "  give the field `boundaries`, or put it into a sequence of its own that no group names"
        )


def _tables(spec: RecModelSpec, plan: Plan, outputs: Sequence[Output], linear: set[str]) -> dict[str, Table]:
    ordinals = {name: i for i, name in enumerate(sorted(plan.tables))}
    dims = {t.name: t.dim for t in spec.embeddings.tables}
    for name in dims:
        if name not in plan.tables:
            raise NetworkError(f"embeddings.tables: no table '{name}'\n  {did_you_mean(name, plan.tables)}")
    default = spec.embeddings.defaults.dim
    names = sorted({o.table for o in outputs if o.table})
    return {n: Table(n, ordinals[n], dims.get(n, default), n in linear) for n in names}


def _fm_block(spec: RecModelSpec, wide: Sequence[Slot]) -> tuple[int, int]:
    if spec.network.kind is not NetworkKind.DEEP_FM:
        return 0, 0
    dims = {s.width for s in wide}
    if len(dims) > 1:
        shown = ", ".join(f"{s.output}: {s.width}" for s in wide)
        raise NetworkError(
            f"network DeepFM: all features of group '{LINEAR_GROUP}' need one embedding dim, got {shown}\n"
            "  make their dims equal in spec.embeddings, or leave the odd one to group 'deep'"
        )
    return len(wide), dims.pop() if dims else 0


def _runs(slots: Sequence[Slot]) -> tuple[tuple[int, int], ...]:
    """Merges the slots' column ranges into maximal contiguous runs, ascending."""
    runs: list[tuple[int, int]] = []
    for start, stop in sorted((s.column, s.column + s.width) for s in slots):
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
    return tuple(runs)
