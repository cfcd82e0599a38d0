"""Where the outputs of a ranking over the cache lie: in one fresh block of memory for each request.

First the ids of outputs of one id, and of several; then float32 numbers, int32 offsets, and float32 weights. Where each
begins is a number of bytes that depends on the rows, and another number that depends on how many ids there may be.
"""

import numpy as np

from featuregen.items.kernels.program import address_of
from featuregen.items.steps import StepTable
from featuregen.items.table import STEP_WIDTH, T_CAPACITY, T_DONE, T_NEEDED, T_OFFSETS, T_OUT, T_WEIGHTS
from featuregen.results import Column

_CAPACITY = 1024


class Outputs:
    """Memory of the outputs of a table of steps. Used by one thread at a time.

    Args:
        steps: the steps.
    """

    def __init__(self, steps: StepTable) -> None:
        self._steps, self._table = steps, steps.table
        self._flat = steps.table.reshape(-1)
        self._single = np.array([*steps.ones.steps, *steps.many.steps], np.int64)
        self._capacities = [_CAPACITY] * len(steps.many.names)
        self._rows, self._block = 0, np.zeros(0, np.int64)
        self._place()

    def allocate(self, rows: int) -> None:
        """Makes the block of a request and tells every step where its output belongs."""
        self._rows = rows
        self._block = np.empty((self._bytes + self._bytes_by_row * rows + 7) // 8, np.int64)
        self._starts = self._fixed + self._by_row * rows
        self._flat[self._fields] = self._starts + address_of(self._block)

    def make_room(self) -> None:
        """Makes room for as many ids as steps said that they need."""
        for index, step in enumerate(self._steps.many.steps):
            needed = int(self._table[step, T_NEEDED])
            if needed:
                self._capacities[index] = needed * 5 // 4
        self._place()

    def columns(self) -> dict[str, Column]:
        """Returns the outputs that the steps wrote; the arrays are the caller's to keep."""
        rows, steps, block, result = self._rows, self._steps, self._block, {}
        words, floats = block.view(np.int32), block.view(np.float32)
        starts = iter((self._starts // 4).tolist())
        singles = [next(starts) // 2 for _ in self._single]
        for name in steps.dense.names:
            at = next(starts)
            result[name] = Column(rows, values=floats[at : at + rows, None])
        for _, name, width in steps.wide:
            at = next(starts)
            result[name] = Column(rows, values=floats[at : at + rows * width].reshape(rows, width))
        totals = self._table[self._single, T_DONE].tolist()
        for name, ids, total in zip((*steps.ones.names, *steps.many.names), singles, totals, strict=True):
            at = next(starts)
            result[name] = Column(rows, block[ids : ids + total], words[at : at + rows + 1])
        for name, total in zip(steps.many.names, totals[len(steps.ones.names) :], strict=True):
            if name in steps.weighted:
                at = next(starts)
                result[name].weights = floats[at : at + total]
        return result

    def _place(self) -> None:
        """Decides where everything begins: a field of a step, bytes, and bytes by row."""
        steps, places = self._steps, []
        fixed, by_row = 0, 0
        for step in steps.ones.steps:
            places.append((step, T_OUT, fixed, by_row))
            by_row += 8
        for step, capacity in zip(steps.many.steps, self._capacities, strict=True):
            places.append((step, T_OUT, fixed, by_row))
            fixed += 8 * capacity
        for step, width in [
            *((step, 1) for step in steps.dense.steps),
            *((step, width) for step, _, width in steps.wide),
        ]:
            places.append((step, T_OUT, fixed, by_row))
            by_row += 4 * width
        for step in self._single.tolist():
            places.append((step, T_OFFSETS, fixed, by_row))
            fixed, by_row = fixed + 4, by_row + 4
        for name, step, capacity in zip(steps.many.names, steps.many.steps, self._capacities, strict=True):
            if name in steps.weighted:
                places.append((step, T_WEIGHTS, fixed, by_row))
                fixed += 4 * capacity
        of_steps, fields, self._fixed, self._by_row = np.array(places, np.int64).reshape(-1, 4).T
        self._fields = of_steps * STEP_WIDTH + fields
        self._bytes, self._bytes_by_row = fixed, by_row
        self._table[self._steps.many.steps, T_CAPACITY] = self._capacities
