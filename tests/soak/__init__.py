"""A training under random misfortune: `make soak MINUTES=10`, or `python -m tests.soak --help`."""
