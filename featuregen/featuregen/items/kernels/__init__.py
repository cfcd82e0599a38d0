"""Kernels over the codes and records of the item cache, compiled by numba as one program without the GIL."""
