"""The same operators in NumPy and Arrow, for machines without numba: the same bits, slower."""
