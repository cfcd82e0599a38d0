"""Live checks of what is being learnt: windows of scored samples, metrics over them, and the gate."""

from kuberec_runtime.monitor.gate import Gate, Verdict
from kuberec_runtime.monitor.window import Window, auc

__all__ = ["Gate", "Verdict", "Window", "auc"]
