"""Dense weights and their optimizer state, as safetensors: readable anywhere, and nothing in it can run code."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kuberec_runtime.checkpoint.errors import CorruptFile
from kuberec_runtime.checkpoint.manifest import FileRef
from kuberec_runtime.checkpoint.rows import read_verified
from kuberec_runtime.checkpoint.store import Store
from kuberec_runtime.crashpoints import crash_here


def write_dense(
    store: Store, prefix: str, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> FileRef:
    """Writes arrays durably, e.g. `weights`, `m`, `v` as float32[d], with metadata such as the optimizer's step.

    Raises:
        StoreError: they could not be written.
    """
    body = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata or {}))
    reference = FileRef(key=f"{prefix}/dense.safetensors", size=len(body), sha256=hashlib.sha256(body).hexdigest())
    crash_here("checkpoint.before-dense")
    store.put(reference.key, body)
    crash_here("checkpoint.dense-written")
    return reference


def read_dense(store: Store, reference: FileRef) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Reads and verifies what `write_dense` wrote: arrays and metadata.

    Raises:
        ObjectMissing: the file is not there.
        CorruptFile: it is not what the manifest says.
        StoreError: it could not be read.
    """
    body = bytes(read_verified(store, reference))
    try:
        arrays = load(body)
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise CorruptFile(reference.key, f"{store.uri}/{reference.key}: not a safetensors file: {error}") from error
    return arrays, dict(header.get("__metadata__", {}))
