"""May rows of a checkpoint be trained on? Their state must be that of the model's optimizer.

A row carries what its optimizer remembers, and nothing in it says what the floats mean: Adam's moments read as FTRL's z
and n would train on without a word. So a manifest names the optimizer, and an attempt whose model has another one is
refused before anything is loaded. A number of an optimizer may change, from the next push on, but for one: FTRL's z was
summed up at its learning rate, and dividing it by another one would scale every weight.
"""

from kuberec_api.model import SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.checkpoint import FileRef, Manifest, RowOptimizerRef
from kuberec_runtime.table import RowLayout

_UNDO = "undo the change of embeddings.defaults.optimizer, or start anew under another checkpoint.uri"


class OptimizerMismatchError(Exception):
    """The checkpoint's rows hold the state of another optimizer."""


def reference(optimizer: SparseOptimizer) -> RowOptimizerRef:
    """What a manifest says of the optimizer of its rows."""
    return RowOptimizerRef(kind=optimizer.kind.value, learning_rate=optimizer.learning_rate)


def check_row_state(manifest: Manifest, optimizer: SparseOptimizer) -> None:
    """Compares an epoch's rows with the optimizer that shall go on with them; an epoch without rows fits any.

    Manifests that were written before they named their optimizer are judged by the floats of a row.

    Raises:
        OptimizerMismatchError: they do not fit; the message says what was changed and how to mend it.
    """
    files = [file for link in manifest.chain for file in link.files if file.rows]
    if not files:
        return
    written, mine = manifest.row_optimizer, reference(optimizer)
    if written is None:
        if misfit := next((f for f in files if f.stride != RowLayout.of(f.width, optimizer.kind).stride), None):
            raise OptimizerMismatchError(
                f"epoch {manifest.epoch}: rows of {misfit.key} were trained with {_kinds_of(misfit)}, the model's "
                f"optimizer is {mine.kind}\n  {_UNDO}"
            )
    elif written.kind != mine.kind:
        raise OptimizerMismatchError(
            f"epoch {manifest.epoch}: its rows were trained with {written.kind}, the model's optimizer is {mine.kind}; "
            f"a row's state means nothing to another optimizer\n  {_UNDO}"
        )
    elif optimizer.kind is SparseOptimizerKind.FTRL and written.learning_rate != mine.learning_rate:
        raise OptimizerMismatchError(
            f"epoch {manifest.epoch}: its rows were trained with FTRL at learningRate {written.learning_rate}, the "
            f"model has {mine.learning_rate}; with another rate FTRL's sums would stand for other weights\n  {_UNDO}"
        )


def _kinds_of(file: FileRef) -> str:
    fitting = [k.value for k in SparseOptimizerKind if RowLayout.of(file.width, k).stride == file.stride]
    return " or ".join(fitting) or f"an optimizer of {file.stride - file.width - 2} floats a row"
