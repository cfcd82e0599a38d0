"""What never changes in a plan's operation table: each operation's row, and the constants that it points to."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from featuregen.expression import Code, Program
from featuregen.files import vocabulary
from featuregen.hash64 import HASHES
from featuregen.kernels import layout
from featuregen.kernels.buckets import multiplier_of
from featuregen.kernels.program import run_program
from featuregen.plan import Behavior, Encoder, Operation, Plan, Rescale
from featuregen.program.columns import ColumnTable

OPS = {
    "id": layout.OP_ID,
    "combo": layout.OP_COMBO,
    "raw": layout.OP_RAW,
    "combine": layout.OP_COMBINE,
    "lookup": layout.OP_LOOKUP,
    "match": layout.OP_MATCH,
    "expr": layout.OP_EXPR,
    "overlap": layout.OP_OVERLAP,
    "kv_dot": layout.OP_KV_DOT,
    "window": layout.OP_WINDOW,
    "sequence": layout.OP_SEQUENCE,
}
_ENCODES = {"hash": layout.ENCODE_HASH, "identity": layout.ENCODE_IDENTITY, "vocab": layout.ENCODE_VOCAB}
_RESCALES = {
    "log10": layout.RESCALE_LOG10,
    "zscore": layout.RESCALE_ZSCORE,
    "minmax": layout.RESCALE_MINMAX,
    "expression": layout.RESCALE_EXPRESSION,
}
_COMBINERS = {
    "sum": layout.COMBINE_SUM,
    "mean": layout.COMBINE_MEAN,
    "min": layout.COMBINE_MIN,
    "max": layout.COMBINE_MAX,
    "count": layout.COMBINE_COUNT,
    "none": layout.COMBINE_NONE,
}
_OVERLAPS = {
    "query_common_ratio": layout.OVERLAP_QUERY_RATIO,
    "title_common_ratio": layout.OVERLAP_TITLE_RATIO,
    "is_contain": layout.OVERLAP_CONTAIN,
    "is_equal": layout.OVERLAP_EQUAL,
    "index_of": layout.OVERLAP_INDEX_OF,
    "proximity_min_cover": layout.OVERLAP_MIN_COVER,
    "proximity_min_dist": layout.OVERLAP_MIN_DIST,
    "proximity_max_dist": layout.OVERLAP_MAX_DIST,
    "proximity_avg_dist": layout.OVERLAP_AVG_DIST,
}
_AGGREGATIONS = {
    "count": layout.AGG_COUNT,
    "sum": layout.AGG_SUM,
    "avg": layout.AGG_AVG,
    "min": layout.AGG_MIN,
    "max": layout.AGG_MAX,
    "last": layout.AGG_LAST,
}
_METHODS = {"overlap": _OVERLAPS, "window": _AGGREGATIONS}


def capacity_of(entries: int) -> int:
    """Returns the slots of an index of so many entries, as `kernels.index.capacity_of` does."""
    return 1 << max(1, (2 * entries).bit_length())


class Constants:
    """Memory at addresses that stay valid as long as this lives."""

    def __init__(self) -> None:
        self._alive: list[Any] = []
        self.scratch = self.keep(np.zeros(layout.SCRATCH_BYTES, np.uint8))

    def keep(self, array: Any) -> int:
        """Returns the address of an array."""
        self._alive.append(array)
        return int(array.ctypes.data)

    def floats(self, values: Any) -> int:
        """Returns the address of float64 numbers."""
        return self.keep(np.array(values, np.float64))

    def texts(self, texts: Any) -> tuple[int, int]:
        """Returns the addresses of int32 offsets and bytes of texts."""
        encoded = [text.encode() for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        return self.keep(offsets), self.keep(np.frombuffer(b"".join(encoded) + bytes(8), np.uint8))

    def index(self, texts: Any, payloads: Any) -> tuple[int, int, int]:
        """Returns slots, mask and records of an index of distinct texts; `payloads` are 8 bytes each."""
        records = np.zeros((max(1, len(texts)), layout.INDEX_WIDTH), np.int64)
        records[: len(texts), 2] = payloads.view(np.int64)
        slots = np.zeros(capacity_of(len(texts)), np.int64)
        row = np.zeros(layout.OPERATION_WIDTH, np.int64)
        row[layout.O_KIND], row[layout.O_ROWS] = layout.OP_INDEX, len(texts)
        row[layout.O_WORD_TEXT : layout.O_WORD_DATA + 1] = self.texts(texts)
        found = self.keep(slots), len(slots) - 1, self.keep(records)
        row[layout.O_WORDS : layout.O_WORDS + layout.INDEX_WIDTH] = found
        run_program(int(row.ctypes.data), 1)
        return found


class Rows:
    """Writes rows of the operation table."""

    def __init__(self, plan: Plan, files: Mapping[str, bytes], constants: Constants, columns: ColumnTable) -> None:
        self._plan, self._files, self._constants, self._columns = plan, files, constants, columns

    def _column(self, name: str) -> int:
        """Returns the address of a flat column, 0 for none."""
        return self._columns.addresses[self._columns.index[name]] if name else 0

    def select(self, row: Any, behavior: Behavior, actions: tuple[str, ...]) -> None:
        """Writes the choice of a behaviour's visible events."""
        self._start(row, layout.OP_SELECT)
        self._events(row, behavior.name)
        row[layout.O_MAX_EVENTS], row[layout.O_MAX_AGE] = behavior.max_events, behavior.max_age_ms
        row[layout.O_ACTIONS] = self._column(f"behavior.{behavior.name}.action" if actions else "")
        row[layout.O_ACTION_COUNT] = len(actions)
        row[layout.O_WORD_TEXT : layout.O_WORD_DATA + 1] = self._constants.texts(actions)

    def operation(self, row: Any, operation: Operation) -> Any:
        """Writes an operation; returns the spans of its expression's variables, None if it has none."""
        self._start(row, OPS[operation.op])
        op, output = operation.op, operation.output
        if operation.program is None:
            row[layout.O_A : layout.O_A + min(3, len(operation.columns))] = [
                self._column(name) for name in operation.columns[:3]
            ]
        row[layout.O_WIDTH] = operation.dim
        if operation.encoder is not None:
            self._encoder(row, operation, operation.encoder)
        self._numbers(row, operation)
        row[layout.O_METHOD] = _METHODS.get(op, _COMBINERS).get(operation.method or operation.combiner, 0)
        if op == "combo":
            row[layout.O_MIX], row[layout.O_PART_COUNT] = operation.mix, len(operation.columns)
            parts = np.array([self._column(name) for name in operation.columns], np.int64)
            row[layout.O_PARTS] = self._constants.keep(parts)
        elif op == "combine" and operation.value_map:
            words = dict(operation.value_map)
            payloads = np.array(list(words.values()), np.float64)
            row[layout.O_WORDS : layout.O_WORDS + 3] = self._constants.index(list(words), payloads)
        elif op in ("lookup", "match"):
            show = {"key": layout.SHOW_KEY, "pkey": layout.SHOW_PKEY, "skey": layout.SHOW_SKEY}
            row[layout.O_SHOW] = sum(show[key] for key in operation.show)
            row[layout.O_TAKES] = self._takes(operation)
        elif op == "window":
            row[layout.O_C] = self._column(operation.value_column)
            row[layout.O_WINDOWS] = self._constants.keep(np.array(operation.windows_ms, np.int64))
            row[layout.O_WINDOW_COUNT] = len(operation.windows_ms)
        elif op == "sequence":
            row[layout.O_LENGTH], row[layout.O_PAD] = output.length, operation.pad_empty
            row[layout.O_TS] = self._column(operation.aligned)
        if operation.behavior:
            self._events(row, operation.behavior)
        if operation.program is None:
            return None
        row[layout.O_EXPRESSION], spans = self._expression(
            operation.program, [self._column(name) for name in operation.columns], operation.fill_missing
        )
        return spans

    def _takes(self, operation: Operation) -> int:
        """Returns what becomes of what a map has, which its type decides."""
        values = self._columns.shapes[self._columns.index[operation.columns[0]]].below
        if operation.op == "match":
            values = values.below if values else None
        assert values is not None, operation.output.name
        if values.nested:
            return layout.TAKE_VECTORS
        if values.kind == layout.KIND_TEXT:
            return layout.TAKE_TEXTS
        return layout.TAKE_ALL if operation.combiner == "none" else layout.TAKE_NUMBERS

    def _start(self, row: Any, kind: int) -> None:
        row[layout.O_KIND], row[layout.O_SCRATCH] = kind, self._constants.scratch
        row[layout.O_STD] = self._plan.hash == "std64"
        row[layout.O_DEFAULT], row[layout.O_BOUND_COUNT] = -1, -1

    def _events(self, row: Any, behavior: str) -> None:
        row[layout.O_TS], row[layout.O_NOW] = self._column(f"behavior.{behavior}.ts"), self._column("now")

    def _encoder(self, row: Any, operation: Operation, encoder: Encoder) -> None:
        row[layout.O_ENCODE], row[layout.O_BUCKETS] = _ENCODES[encoder.kind], encoder.buckets
        row[layout.O_UNKNOWN] = encoder.unknown
        if encoder.kind == "hash":
            row[layout.O_MULTIPLIER] = multiplier_of(encoder.buckets)
        prefix = operation.prefix.encode()
        row[layout.O_PREFIX_SIZE] = len(prefix)
        row[layout.O_PREFIX] = self._constants.keep(np.frombuffer(prefix + bytes(8), np.uint8))
        words = vocabulary(encoder, self._files) if encoder.kind == "vocab" else {}
        if encoder.kind == "vocab":
            ids = np.array(list(words.values()), np.int64)
            row[layout.O_WORDS : layout.O_WORDS + 3] = self._constants.index(list(words), ids)
        if operation.default_text is not None:
            row[layout.O_DEFAULT] = self._default_id(encoder, operation.default_text, words)

    def _default_id(self, encoder: Encoder, text: str, words: Mapping[str, int]) -> int:
        if encoder.kind == "hash":
            return HASHES[self._plan.hash](text.encode()) % encoder.buckets
        return int(text) if encoder.kind == "identity" else words.get(text, encoder.unknown)

    def _numbers(self, row: Any, operation: Operation) -> None:
        keep = self._constants.floats
        if operation.default_numbers is not None:
            row[layout.O_DEFAULTS] = keep(operation.default_numbers)
        if operation.boundaries is not None:
            row[layout.O_BOUNDS], row[layout.O_BOUND_COUNT] = keep(operation.boundaries), len(operation.boundaries)
        if operation.rescale is not None:
            self._rescale(row, operation.rescale)

    def _rescale(self, row: Any, rescale: Rescale) -> None:
        row[layout.O_RESCALE] = _RESCALES[rescale.kind]
        row[layout.O_NUMBERS] = self._constants.floats([rescale.a, rescale.b])
        if rescale.program is not None:
            row[layout.O_RESCALE_BY], _ = self._expression(rescale.program, [0], False)

    def _expression(self, program: Program, columns: list[int], fill: bool) -> tuple[int, Any]:
        """Returns the address of an expression and int64[variables, 2], the spans of its variables: one number each."""
        constants, count = self._constants, program.variables
        spans = np.ones((max(1, count), 2), np.int64)
        spans[:, 0] = constants.floats([0.0] * max(1, count)) + 8 * np.arange(max(1, count))
        by_element = {a for code, a in program.code if code == Code.VARIABLE}
        wholes = {part for code, a in program.code if code >= Code.LENGTH for part in (a % 256, a // 256)}
        record = np.zeros(layout.EXPRESSION_WIDTH, np.int64)
        record[layout.X_CODE] = constants.keep(np.array(program.code, np.int64))
        record[layout.X_COUNT] = len(program.code)
        record[layout.X_CONSTANTS] = constants.floats(program.constants or [0.0])
        record[layout.X_STACK] = constants.floats([0.0] * (program.depth + 4))
        record[layout.X_SPANS] = constants.keep(spans)
        record[layout.X_VARIABLES] = count
        record[layout.X_COLUMNS] = constants.keep(np.array(columns, np.int64))
        record[layout.X_READ] = sum(1 << variable for variable in by_element | wholes)
        record[layout.X_BY_ELEMENT] = sum(1 << variable for variable in by_element)
        record[layout.X_PAIRS] = any(code >= Code.DOT for code, _ in program.code)
        record[layout.X_FILL] = fill
        return constants.keep(record), spans
