"""Sequences of fg.json: lists of the user, element for element as upstream; on demand the events of a behaviour.

pyFG keeps the first `sequence_length` elements of lists that come with the request (`clk__iid`, `clk__dt`), in their
order, and an empty sequence has one missing element. A native sequence without a behaviour is exactly that. With
`--behavior clk` the same sequence reads a logged behaviour: item fields of an event then come from the item cache, as
`sequence_pk` does it upstream, but every event needs a `ts`, and elements are the last ones, oldest first.
"""

import re

from featuregen.errors import FeatureError
from featuregen.importer.dialect import DialectName
from featuregen.importer.fgjson import FgFeature, FgSequence, value_kind
from featuregen.importer.fields import ONE_TEXT, T, split_expression
from featuregen.importer.operators import whole_vectors
from featuregen.importer.tails import Native, Translation, number_tail, refuse_float_id, text_tail, width

_KINDS = ("id_feature", "raw_feature", "expr_feature", "custom_feature")
_LISTS = {
    T.STRING: T.STRING_LIST,
    T.INT: T.INT_LIST,
    T.FLOAT: T.FLOAT_LIST,
    T.STRING_LIST: T.STRING_LISTS,
    T.FLOAT_LIST: T.FLOAT_LISTS,
}


def grouped(t: Translation, sequence: FgSequence, behavior: bool) -> Native:
    """A sequence of several fields."""
    length = _length(sequence.name, sequence.keys.get("sequence_length"))
    native: Native = {"name": sequence.name, "op": "sequence"}
    if behavior:
        t.fields.behavior(sequence.name, length)
        native["behavior"] = sequence.name
    native |= {"length": length, "padEmpty": True}
    place = _Place(t, sequence.name, behavior)
    native["fields"] = [place.field(f) for f in sequence.features]
    return native


def plain(t: Translation, f: FgFeature) -> Native:
    """A feature that is a sequence by itself."""
    length = _length(f.name, f.keys.get("sequence_length"))
    field = _Place(t, "", False).field(f)
    return {"name": f.name, "op": "sequence", "length": length, "padEmpty": True, "fields": [field]}


def _length(name: str, value: object) -> int:
    if not isinstance(value, int) or not 1 <= value <= 1000:
        shown = "missing" if value is None else value
        raise FeatureError(name, f"sequence_length is {shown}", "say how many elements are kept, 1 to 1000")
    return value


class _Place:
    """Where the fields of one sequence are: the user's lists, or a behaviour's events."""

    def __init__(self, t: Translation, sequence: str, behavior: bool) -> None:
        self._t, self._sequence, self._behavior = t, sequence, behavior

    def field(self, f: FgFeature) -> Native:
        if f.kind not in _KINDS or (f.kind == "custom_feature" and f.text("operator_name") != "SeqExpr"):
            hint = "compute it where the list is written, and send its results as a list"
            raise f.error(f"a sequence of {f.kind} is not supported", hint)
        if f.flag("stub_type"):
            raise f.error("is a stub inside a sequence", "other features cannot read it: remove it")
        native = {"id_feature": self._id, "raw_feature": self._raw}.get(f.kind, self._expression)(f)
        named = str(native.get("in", "")).rpartition(".")[2] == f.own_name
        return native if named else {"name": f.own_name} | native

    def _id(self, f: FgFeature) -> Native:
        refuse_float_id(f)
        if f.flag("weighted") or f.has("kv_separator"):
            raise f.error("weighted is true, which a sequence cannot have", "set weighted: false")
        prefix = f.flag("need_prefix", self._t.dialect.need_prefix)
        if prefix and self._sequence and self._t.dialect.name is DialectName.PYFG:
            name = f.text_or("force_prefix_name", f.own_name)
            self._t.notes.append(
                f"feature '{f.name}': its texts begin with '{name}_', as RTP's do; pyFG's are not documented"
            )
        many = f.several(False)
        ref = self._read(f, f.text("expression"), (T.STRING_LIST,) if many else ONE_TEXT)
        return {"in": ref} | text_tail(self._t, f, prefix)

    def _raw(self, f: FgFeature) -> Native:
        dim, whole = width(f), value_kind(f.name, f.text_or("value_type", "")) == "int"
        one = (T.INT, T.FLOAT) if whole else (T.FLOAT, T.INT)
        ref = self._read(f, f.text("expression"), (T.FLOAT_LIST,) if dim > 1 else one)
        tail = number_tail(self._t, f, dim, empty="0")
        if "defaults" in tail:
            raise f.error("has a default_value of several numbers", f"give one number for all {dim}")
        return {"in": ref} | tail

    def _expression(self, f: FgFeature) -> Native:
        if f.kind == "expr_feature":
            text, inputs = f.text("expression"), f.texts("variables")
        else:
            text, inputs = f.text("formula"), f.texts("expression")
        names = [one.rpartition(":")[2] for one in inputs]
        if text == "spherical_distance":
            text = f"sphere_dist({', '.join(names)})"
        if whole_vectors(f, text, names):
            raise f.error("has a function of whole vectors", "elements are computed one by one")
        lists = self._lists(f, inputs)
        refs = [
            self._read(f, one, (T.FLOAT, T.INT)) if one in lists else self._t.fields.read(f.name, one, (T.FLOAT, T.INT))
            for one in inputs
        ]
        for name, ref in zip(names, refs, strict=True):
            text = _renamed(text, name, ref.rpartition(".")[2])
        return {"expr": text, "vars": refs} | number_tail(self._t, f, empty="0")

    def _lists(self, f: FgFeature, inputs: list[str]) -> list[str]:
        """Which inputs are sequences: as `sequence_fields` says, else the item's; upstream's rule."""
        if f.has("sequence_fields"):
            fields = f.texts("sequence_fields")
            return [one for one in inputs if one.rpartition(":")[2] in fields]
        found = [one for one in inputs if one.startswith("item:") or self._given_list(f, one)]
        if not found:
            raise f.error("none of its inputs is a sequence", f"name them in sequence_fields: {', '.join(inputs)}")
        return found

    def _given_list(self, f: FgFeature, expression: str) -> bool:
        side, name = split_expression(f.name, expression)
        return self._t.fields.given(f"{side}.{name}") in (T.FLOAT_LIST, T.INT_LIST)

    def _read(self, f: FgFeature, expression: str, types: tuple[T, ...]) -> str:
        side, name = split_expression(f.name, expression)
        if f.has("sequence_fields") and name not in f.texts("sequence_fields"):
            raise f.error(
                f"'{expression}' is not in sequence_fields", "add it, or move the feature out of the sequence"
            )
        if side not in ("user", "item"):
            raise f.error(f"'{expression}' as a sequence", "a sequence reads the user's lists, or fields of the item")
        if self._behavior and side == "item":
            return self._t.fields.read(f.name, expression, types)
        if self._behavior:
            scalars = tuple(kind for kind in types if kind in (T.STRING, T.INT, T.FLOAT))
            if not scalars:
                raise f.error(f"'{expression}' has lists in its elements", "an event's own field is one text or number")
            return self._t.fields.read_event(f.name, self._sequence, name, scalars)
        lists = tuple(_LISTS[kind] for kind in types)
        if self._sequence:
            return self._t.fields.read(f.name, f"user:{self._sequence}{self._t.dialect.joiner}{name}", lists)
        if side == "item":
            hint = "put it into a grouped sequence; several values of the candidate are an id_feature with value_dim 0"
            raise f.error(f"'{expression}' would be a sequence of each candidate", hint)
        return self._t.fields.read(f.name, expression, lists)


def _renamed(text: str, old: str, new: str) -> str:
    """The expression with a variable under its native name."""
    return re.sub(rf"(?<![\w.]){re.escape(old)}(?!\w|\s*\()", new, text)
