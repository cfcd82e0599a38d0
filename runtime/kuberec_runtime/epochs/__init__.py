"""Committed epochs seen from outside, without a training: what changed between two, and one as files for other tools.

Readers only: nothing here writes to the checkpoint. What an epoch is made of, and when it counts as committed, is the
business of `kuberec_runtime.checkpoint`.
"""

from kuberec_runtime.epochs.changes import Changes, compare
from kuberec_runtime.epochs.export import Exported, ExportError, export_epoch

__all__ = ["Changes", "ExportError", "Exported", "compare", "export_epoch"]
