"""How the benchmarks measure and what they print: ours and the peer in turns, medians, one JSON line at the end."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median, fastest, and the middle half relative to the median (`spread`)."""

    median: float
    best: float
    spread: float
    n: int


def summary(seconds: Sequence[float]) -> Timing:
    """Median and spread of a list of seconds."""
    ordered = sorted(seconds)
    median = statistics.median(ordered)
    quarter = len(ordered) // 4
    return Timing(median, ordered[0], (ordered[-1 - quarter] - ordered[quarter]) / median, len(ordered))


def in_turns(calls: dict[str, Callable[[], object]], seconds: float, warm: int = 3) -> dict[str, Timing]:
    """Times each call in turns, so that a noisy neighbour disturbs all alike, for `seconds` in all."""
    for call in calls.values():
        for _ in range(warm):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, taken.values())) < 5:
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: summary(times) for name, times in taken.items()}


def options(description: str) -> argparse.Namespace:
    """`--smoke` (a few seconds) and `--full` (minutes); neither: within a minute."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, figures mean nothing")
    parser.add_argument("--full", action="store_true", help="larger, longer")
    return parser.parse_args()


def print_result(name: str, ours: Timing, peer: Timing, unit: str, **figures: object) -> None:
    """The last line of every benchmark; times in milliseconds. `ratio` is of medians, `ratio_of_best` of fastest calls.

    On a shared machine the fastest calls say more about the programs, and the medians more about the neighbours.
    """
    result = {
        "name": name,
        "ours": round(ours.median * 1e3, 4),
        "peer": round(peer.median * 1e3, 4),
        "unit": unit,
        "ratio": round(peer.median / ours.median, 2),
        "n": ours.n,
        "ratio_of_best": round(peer.best / ours.best, 2),
        "spread": round(max(ours.spread, peer.spread), 3),
        **figures,
    }
    print(json.dumps(result))
