"""Rows of several tables in one round trip."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kuberec_api.training import RowType
from kuberec_runtime.publish import resp
from kuberec_runtime.publish.publication import row_prefix
from kuberec_runtime.publish.rowtype import decode_rows, row_bytes


def fetch_rows(
    connection: resp.Connection,
    namespace: str,
    ids: Mapping[str, NDArray[np.int64]],
    widths: Mapping[str, int],
    dtype: RowType,
    timeout_s: float,
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Reads rows by one MGET; see `Tier.read_rows` for what comes back."""
    groups = [(row_prefix(namespace, table), wanted) for table, wanted in ids.items() if wanted.size]
    total = sum(wanted.size for _, wanted in groups)
    out = {t: (np.zeros((0, widths[t]), np.float32), np.zeros(0, np.bool_)) for t in ids}
    if not total:
        return out
    connection.send(resp.encode_mget(groups), timeout_s)
    data, starts, sizes = connection.bulks(total, timeout_s)
    first = 0
    for table, wanted in ids.items():
        raw = np.empty((wanted.size, row_bytes(widths[table], dtype)), np.uint8)
        found = np.empty(wanted.size, np.bool_)
        resp.gather_values(data, starts, sizes, first, raw, found)
        first += wanted.size
        out[table] = (decode_rows(raw, dtype), found)
    return out
