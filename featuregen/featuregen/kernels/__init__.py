"""Kernels: what each operator does to the rows of a batch, compiled by numba without the GIL."""
