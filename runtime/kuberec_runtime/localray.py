"""A Ray of this machine alone, on loopback: for local trainings and servings, each with one of its own."""

import os
from typing import Any

import ray

HOST = "127.0.0.1"
_TRIES = 3


def start_local_ray(**options: Any) -> None:
    """Starts Ray and connects to it; again if a busy machine made it miss its own deadline of 30 s.

    Args:
        options: of `ray.init`, besides the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for left in reversed(range(_TRIES)):
        try:
            ray.init(address="local", include_dashboard=False, _node_ip_address=HOST, **options)
            return
        except Exception:  # Ray raises a bare Exception here
            ray.shutdown()
            if not left:
                raise
