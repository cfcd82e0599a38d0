"""A plan as the table of operations that the kernels run: constants once per engine, addresses once per call.

All that a kernel writes is preallocated here: scratch that grows, and one fresh block per call for all outputs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.columns import describe, element_count, shape_of, text_bytes
from featuregen.errors import FeatureError
from featuregen.hash64 import farm64
from featuregen.kernels import run_program
from featuregen.layout import (
    COLUMN_WIDTH,
    COMBINERS,
    ENCODE_HASH,
    ENCODE_IDENTITY,
    ENCODE_VOCAB,
    O_A,
    O_ACTION,
    O_ACTION_COUNT,
    O_ACTION_DATA,
    O_ACTION_TEXT,
    O_B,
    O_BOUND_COUNT,
    O_BOUNDS,
    O_BUCKETS,
    O_BUFFER,
    O_COMBINER,
    O_COUNTS,
    O_DEFAULT,
    O_DISTINCT,
    O_ENCODE,
    O_GROUP_OFFSETS,
    O_GROUP_POSITIONS,
    O_GROUP_STEP,
    O_HAS_DEFAULT,
    O_IDS,
    O_KIND,
    O_LENGTH,
    O_MAX_AGE,
    O_MAX_EVENTS,
    O_MIX,
    O_NOW,
    O_NUMBERS,
    O_PART_COUNT,
    O_PARTS,
    O_RESCALE,
    O_ROWS,
    O_SCRATCH,
    O_SLOT_CAPACITY,
    O_SLOTS,
    O_SPANS,
    O_STD,
    O_TS,
    O_UNKNOWN,
    O_VALUES,
    O_WINDOW_COUNT,
    O_WINDOWS,
    O_WORD_CAPACITY,
    O_WORD_DATA,
    O_WORD_IDS,
    O_WORD_SLOTS,
    O_WORD_TEXT,
    OP_COMBO,
    OP_COUNT,
    OP_ID,
    OP_LOOKUP,
    OP_RAW,
    OP_SELECT,
    OP_SEQUENCE,
    OP_WINDOW,
    OPERATION_WIDTH,
    RESCALE_LOG10,
    RESCALE_MINMAX,
    RESCALE_NONE,
    RESCALE_ZSCORE,
    SCRATCH_BYTES,
)
from featuregen.oracle import default_id
from featuregen.plan import Encoder, Operation, Plan
from featuregen.results import Column

_OPS = {
    "id": OP_ID,
    "raw": OP_RAW,
    "combo": OP_COMBO,
    "lookup": OP_LOOKUP,
    "sequence": OP_SEQUENCE,
    "window": OP_WINDOW,
}
_ENCODES = {"hash": ENCODE_HASH, "identity": ENCODE_IDENTITY, "vocab": ENCODE_VOCAB}
_RESCALES = {"log10": RESCALE_LOG10, "zscore": RESCALE_ZSCORE, "minmax": RESCALE_MINMAX}
_MAX_IDS = 2**31 - 1


class Program:
    """The operation table of a plan, and the contents of its files. Not for use by two threads at once."""

    def __init__(self, plan: Plan, files: Mapping[str, bytes] | None = None) -> None:
        self.plan, self._files = plan, dict(files or {})
        self.column_index = {column.name: index for index, column in enumerate(plan.columns)}
        self._alive: list[Any] = []
        self._scratch: dict[str, tuple[int, int, Any]] = {}  # size, address, buffer
        self._groups: dict[tuple[str, tuple[str, ...]], int] = {}
        for operation in plan.operations:
            if operation.behavior:
                self._groups.setdefault(_group(operation), len(self._groups))
        self._first = len(self._groups)
        self._shapes = [shape_of(column) for column in plan.columns]
        self._is_list = [nesting == "list" for nesting, _ in self._shapes]
        self._logs = {name: self.column_index[f"behavior.{name}.ts"] for name in plan.behaviors}
        self._inputs = [[self.column_index[column] for column in o.columns] for o in plan.operations]
        self._user_side = np.array([output.side == "user" for output in plan.outputs])
        self.table = np.zeros((self._first + len(plan.operations), OPERATION_WIDTH), np.int64)
        self.columns = np.zeros((len(plan.columns), COLUMN_WIDTH), np.int64)
        number = self._keep(np.zeros(SCRATCH_BYTES, np.uint8))
        self.table[:, O_SCRATCH] = number
        self.table[:, O_STD] = plan.hash == "std64"
        for (behavior, actions), index in self._groups.items():
            self._set_group(self.table[index], behavior, actions)
        for index, operation in enumerate(plan.operations):
            self._set_operation(self.table[self._first + index], operation)

    def _keep(self, array: Any) -> int:
        self._alive.append(array)
        return int(array.ctypes.data)

    def _grown(self, name: str, size: int) -> int:
        """Returns the address of a scratch buffer of at least `size` bytes that later calls reuse."""
        held = self._scratch.get(name)
        if held is None or held[0] < size:
            buffer = np.empty(max(64, size + size // 2), np.uint8)
            held = self._scratch[name] = (buffer.size, int(buffer.ctypes.data), buffer)
        return held[1]

    def _texts(self, texts: tuple[str, ...]) -> tuple[int, int]:
        """Returns the addresses of offsets and bytes of constant texts."""
        encoded = [text.encode() for text in texts]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        return self._keep(offsets), self._keep(np.frombuffer(b"".join(encoded) + bytes(8), np.uint8))

    def _set_group(self, row: Any, behavior: str, actions: tuple[str, ...]) -> None:
        limits = self.plan.behaviors[behavior]
        row[O_KIND] = OP_SELECT
        row[O_TS], row[O_NOW] = self.column_index[f"behavior.{behavior}.ts"], self.column_index["now"]
        row[O_MAX_EVENTS], row[O_MAX_AGE] = limits.max_events, limits.max_age_ms
        row[O_ACTION] = self.column_index[f"behavior.{behavior}.action"] if actions else -1
        row[O_ACTION_COUNT] = len(actions)
        row[O_ACTION_TEXT], row[O_ACTION_DATA] = self._texts(actions)

    def _set_operation(self, row: Any, operation: Operation) -> None:
        row[O_KIND] = _OPS[operation.op]
        indexes = [self.column_index[column] for column in operation.columns]
        row[O_A], row[O_B] = ([*indexes, -1, -1])[:2]
        row[O_DEFAULT] = -1
        if operation.encoder is not None:
            self._set_encoder(row, operation.encoder)
            default = default_id(self.plan.hash, operation.encoder, operation.default_text)
            row[O_DEFAULT] = -1 if default is None else default
        if operation.op in ("raw", "lookup"):
            self._set_number(row, operation)
        elif operation.op == "combo":
            row[O_PARTS], row[O_PART_COUNT] = self._keep(np.array(indexes, np.int64)), len(indexes)
            row[O_MIX] = operation.mix
        elif operation.behavior:
            row[O_TS] = self.column_index[f"behavior.{operation.behavior}.ts"]
            row[O_NOW] = self.column_index["now"]
            row[O_LENGTH] = operation.output.length
            row[O_WINDOWS] = self._keep(np.array(operation.windows_ms, np.int64))
            row[O_WINDOW_COUNT] = len(operation.windows_ms)

    def _set_encoder(self, row: Any, encoder: Encoder) -> None:
        row[O_ENCODE], row[O_BUCKETS] = _ENCODES[encoder.kind], encoder.buckets
        if encoder.kind != "vocab":
            return
        words, ids = [word for word, _ in encoder.words], [number for _, number in encoder.words]
        row[O_UNKNOWN] = encoder.unknown
        capacity = _capacity(len(words))
        slots = np.zeros(capacity, np.int32)
        for index, word in enumerate(words):
            at = farm64(word.encode()) & (capacity - 1)
            while slots[at]:
                at = (at + 1) & (capacity - 1)
            slots[at] = index + 1
        row[O_WORD_SLOTS], row[O_WORD_CAPACITY] = self._keep(slots), capacity
        row[O_WORD_TEXT], row[O_WORD_DATA] = self._texts(tuple(words))
        row[O_WORD_IDS] = self._keep(np.array(ids, np.int64))

    def _set_number(self, row: Any, operation: Operation) -> None:
        rescale = operation.rescale
        default = operation.default_numbers[0] if operation.default_numbers else None
        row[O_RESCALE] = _RESCALES[rescale.kind] if rescale else RESCALE_NONE
        numbers = [rescale.a, rescale.b] if rescale else [0.0, 0.0]
        row[O_NUMBERS] = self._keep(np.array([*numbers, default or 0.0], np.float64))
        row[O_HAS_DEFAULT] = default is not None
        row[O_BOUND_COUNT] = -1 if operation.boundaries is None else len(operation.boundaries)
        row[O_BOUNDS] = self._keep(np.array(operation.boundaries or (), np.float64))
        row[O_COMBINER] = COMBINERS.get(operation.combiner, 0)

    def run(self, arrays: list[pa.Array], steps: list[int], rows: int, user_rows: int) -> dict[str, Column]:
        """Runs the plan.

        Args:
            arrays: one array for each column of the plan, of its type.
            steps: 1 where an array has a value for every row, 0 where its first value holds for all rows.
            rows: number of rows.
            user_rows: number of rows of user-side outputs: `rows`, or 1.
        """
        self.columns[:] = [
            describe(array, step, shape) for array, step, shape in zip(arrays, steps, self._shapes, strict=True)
        ]
        events = {name: element_count(arrays[index]) for name, index in self._logs.items()}
        self.table[: self._first, O_ROWS] = user_rows
        counts = np.where(self._user_side, user_rows, rows)
        self.table[self._first :, O_ROWS] = counts
        for (behavior, _), index in self._groups.items():
            self._size_group(index, events[behavior], user_rows)
        row_counts = counts.tolist()
        capacities = [
            self._size_operation(index, operation, arrays, steps, events, row_counts[index])
            for index, operation in enumerate(self.plan.operations)
        ]
        made = self._allocate(row_counts, capacities)
        run_program(self.table, self.columns)
        result = {}
        for output, count, (ids, offsets, values) in zip(self.plan.outputs, row_counts, made, strict=True):
            if values is not None:
                result[output.name] = Column(count, values=values)
            else:
                result[output.name] = Column(count, ids[: offsets[count]], offsets)
        return result

    def _size_group(self, index: int, events: int, rows: int) -> None:
        row = self.table[index]
        row[O_GROUP_OFFSETS] = self._grown(f"offsets{index}", 4 * (rows + 1))
        row[O_GROUP_POSITIONS] = self._grown(f"positions{index}", 4 * events)

    def _size_operation(
        self,
        index: int,
        operation: Operation,
        arrays: list[pa.Array],
        steps: list[int],
        log_events: dict[str, int],
        rows: int,
    ) -> int:
        """Sets the scratch of one operation; returns the greatest number of ids that it may write."""
        op, inputs = operation.op, self._inputs[index]
        capacity = rows
        if op == "id":
            capacity = rows + (element_count(arrays[inputs[0]]) if self._is_list[inputs[0]] else 0)
        elif op == "combo":
            capacity = self._size_combo(index, arrays, rows)
        elif op == "lookup":
            row = self.table[self._first + index]
            shared = steps[inputs[0]] == 0 and rows > 1
            slots = _capacity(element_count(arrays[inputs[0]])) if shared else 0
            row[O_SLOT_CAPACITY] = slots
            row[O_SLOTS] = self._grown(f"slots{index}", 4 * slots)
        elif operation.behavior:
            row = self.table[self._first + index]
            group = self._groups[_group(operation)]
            events, step = log_events[operation.behavior], steps[self.column_index["now"]]
            row[O_GROUP_OFFSETS : O_GROUP_POSITIONS + 1] = self.table[group, O_GROUP_OFFSETS : O_GROUP_POSITIONS + 1]
            row[O_GROUP_STEP] = step
            capacity = min(events, rows * operation.output.length)
            if op == "window":
                distinct = events if inputs and step == 0 else 0
                slots = _capacity(distinct)
                row[O_SLOT_CAPACITY] = slots
                row[O_SLOTS] = self._grown(f"slots{index}", 4 * slots)
                row[O_DISTINCT] = self._grown(f"distinct{index}", 16 * distinct)
                row[O_COUNTS] = self._grown(f"counts{index}", 8 * (distinct + 1) * (len(operation.windows_ms) + 1))
        if capacity > _MAX_IDS:
            raise FeatureError(operation.output.feature, f"a batch gives {capacity} ids", "use smaller batches")
        return capacity

    def _size_combo(self, index: int, arrays: list[pa.Array], rows: int) -> int:
        row, inputs = self.table[self._first + index], self._inputs[index]
        lists = [at for at in inputs if self._is_list[at]]
        values = sum(element_count(arrays[at]) for at in lists) + len(inputs)
        row[O_SPANS] = self._grown(f"spans{index}", 24 * len(inputs) + 16 * values)
        texts = sum(text_bytes(arrays[at], self._shapes[at]) + 24 for at in inputs) + 24 * values + 48
        row[O_BUFFER] = self._grown(f"buffer{index}", texts)
        if not lists:
            return rows
        counting = row.reshape(1, -1).copy()
        counting[0, O_KIND] = OP_COUNT
        return int(run_program(counting, self.columns))

    def _allocate(self, rows: list[int], capacities: list[int]) -> list[tuple[Any, Any, Any]]:
        """Carves all outputs out of one fresh block and writes their addresses to the table."""
        places, at = [], 0
        for output, count, capacity in zip(self.plan.outputs, rows, capacities, strict=True):
            first = at
            if output.kind == "dense":
                at += (4 * count * output.width + 7) & ~7
                places.append((first, first, first))
            else:
                at += 8 * capacity
                places.append((first, at, at))
                at += (4 * (count + 1) + 7) & ~7
        block = np.empty(at + 8, np.uint8)
        self.table[self._first :, O_IDS : O_VALUES + 1] = np.array(places, np.int64) + block.ctypes.data
        made: list[tuple[Any, Any, Any]] = []
        for output, count, capacity, (ids, offsets, _) in zip(self.plan.outputs, rows, capacities, places, strict=True):
            if output.kind == "dense":
                values = np.frombuffer(block, np.float32, count * output.width, ids)
                made.append((None, None, values.reshape(count, output.width)))
            else:
                held = np.frombuffer(block, np.int64, capacity, ids), np.frombuffer(block, np.int32, count + 1, offsets)
                made.append((*held, None))
        return made


def _group(operation: Operation) -> tuple[str, tuple[str, ...]]:
    """Returns what decides which events an operation sees."""
    return operation.behavior, tuple(sorted(operation.actions))


def _capacity(entries: int) -> int:
    """Returns the size of an open-addressing table that is at most half full."""
    return 1 << max(1, (2 * entries).bit_length())
