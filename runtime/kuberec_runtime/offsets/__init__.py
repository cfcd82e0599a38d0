"""Offsets seen and moved from outside, without a training: how far the newest epoch is, and a new epoch elsewhere.

`target` is pure: words of the command line to offsets. `standing` puts an epoch's positions beside what the topic
holds. `reset` is the one writer: it appends an epoch to the commit log under the log's own rules. `proposal` is a reset
that somebody has yet to confirm.
"""

from kuberec_runtime.offsets.proposal import Proposal, propose
from kuberec_runtime.offsets.reset import Reset, ResetRefused
from kuberec_runtime.offsets.target import TargetError

__all__ = ["Proposal", "Reset", "ResetRefused", "TargetError", "propose"]
