"""The user's columns that coded kernels read, handed over by Arrow's C data interface in one piece of memory."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from featuregen.items.division import Division
from featuregen.kernels.arrow import ARRAY_BYTES


class Exports:
    """Which columns are exported, and where to.

    Attributes:
        index: column -> which of the exported arrays it is.
    """

    def __init__(self, division: Division, places: Mapping[str, int]) -> None:
        names = [column for coded in division.coded for column in coded.user]
        self.index = {name: index for index, name in enumerate(dict.fromkeys(names))}
        self._places = [places[name] for name in self.index]
        self._memory = np.zeros(max(1, len(self.index)) * ARRAY_BYTES, np.uint8)
        self._address = int(self._memory.ctypes.data)

    def __len__(self) -> int:
        return len(self.index)

    def export(self, arrays: Sequence[pa.Array]) -> int:
        """Exports the columns and returns their address; the kernels' RELEASE gives them back."""
        address = self._address
        for place in self._places:
            arrays[place]._export_to_c(address)
            address += ARRAY_BYTES
        return self._address
