"""A feature spec to a plan, in pure Python: the operator runs it at `kubectl apply` time without NumPy or numba."""

from featuregen.compiler.compile import compile_plan
from featuregen.plan import Input, Output, Plan, explain_difference

__all__ = ["Input", "Output", "Plan", "compile_plan", "explain_difference"]
