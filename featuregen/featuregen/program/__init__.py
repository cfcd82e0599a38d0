"""A plan as tables that the kernels run: rows, scratch, places of outputs, and Arrow columns by address."""
