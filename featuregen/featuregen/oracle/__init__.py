"""The oracle: what every operator means, as plainly as Python can say it. Never used to train or to serve."""

from featuregen.oracle.row import compute_row

__all__ = ["compute_row"]
