"""What a training learns: Async and Sync beside the oracle, row optimizers, and day after day from Parquet.

Everything is judged on the samples that follow the last one learnt, by the same ones within a row of a table: AUCs of
one row differ by what was learnt. The tables of docs/learning.md are printed by `--full`, one part at a time.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.attempts import Trained, example, train
from benchmarks.heldout import Heldout
from benchmarks.learning_curve import Curve, draw
from kuberec_api import RecModel
from kuberec_api.model import SparseOptimizerKind
from kuberec_runtime.synth import Oracle, ParquetSink, Stream, make_world
from kuberec_runtime.synth.run import run

RATES = {
    SparseOptimizerKind.ROWWISE_ADAGRAD: 0.05,
    SparseOptimizerKind.ADAGRAD: 0.05,
    SparseOptimizerKind.ADAM: 0.001,
    SparseOptimizerKind.FTRL: 0.05,
    SparseOptimizerKind.SGD: 5.0,
}
"""The default of the Adagrads and FTRL, 0.001 for Adam as docs/training.md says, and the best of 1, 5, 20 for SGD."""
TWO_AND_TWO = {"parameterServers.replicas": 2, "workers.replicas": 2, "synchronization.maxStaleness": 2}


@dataclass(frozen=True)
class Scale:
    """How much is learnt: seeds, samples of a training, of a day, and held out; points of the curve."""

    seeds: tuple[int, ...]
    samples: int
    day: int
    heldout: int
    points: int


SMOKE = Scale((0,), 20_000, 10_000, 20_000, 3)
SHORT = Scale((0,), 300_000, 50_000, 100_000, 6)
FULL = Scale((0, 1, 2, 3), 400_000, 150_000, 200_000, 14)


@dataclass(frozen=True)
class World:
    """Samples of one seed in folders `day=01`, `day=02` ..., and those that follow, held out."""

    seed: int
    folder: Path
    heldout: Heldout
    oracle: float

    def day(self, number: int) -> str:
        """The files of a day, from 1 on."""
        return f"file://{self.folder}/day={number:02d}"

    def judge(self, trained: Trained) -> float:
        """AUC of a training's last epoch."""
        return self.heldout.auc(self.heldout.scores(trained.store, trained.epochs[-1]))


def write_world(seed: int, folder: Path, days: int, samples: int, heldout: int) -> World:
    """Writes days of so many samples, and holds out those that follow."""
    world, oracle = make_world(seed), Oracle()
    stream = Stream(world)
    for day in range(1, days + 1):
        run(stream, ParquetSink(world, folder / f"day={day:02d}"), samples=samples)
    run(stream, ParquetSink(world, folder / "heldout"), samples=heldout, oracle=oracle)
    table = pq.read_table(sorted((folder / "heldout").glob("*.parquet")))
    judge = Heldout(RecModel.model_validate(example({"seed": seed})["RecModel"]), table)
    return World(seed, folder, judge, judge.auc(oracle.logits))


def resources(
    world: World, name: str, day: int, model: Mapping[str, object], training: Mapping[str, object]
) -> dict[str, Any]:
    """examples/incremental with the world's seed and files, and a checkpoint of its own."""
    own = {"source.files.uri": world.day(day), "checkpoint.uri": f"file://{world.folder}/{name}"}
    return example({"seed": world.seed, **model}, {**own, **training})


@dataclass
class Modes:
    """AUCs by seed, and the curves of the first."""

    oracle: list[float] = field(default_factory=list)
    of: dict[str, list[float]] = field(default_factory=lambda: {"Sync": [], "Async": []})
    curves: list[Curve] = field(default_factory=list)

    @property
    def lost(self) -> list[float]:
        """What Async loses against Sync, by seed."""
        return [sync - free for sync, free in zip(self.of["Sync"], self.of["Async"], strict=True)]

    def below_oracle(self, mode: str) -> list[float]:
        """What a mode loses against the oracle, by seed."""
        return [best - auc for best, auc in zip(self.oracle, self.of[mode], strict=True)]


def compare_modes(scale: Scale, folder: Path) -> Modes:
    """Learns the same samples in both modes with two workers and two shards."""
    found = Modes()
    for seed in scale.seeds:
        world = write_world(seed, folder / f"modes-{seed}", 1, scale.samples, scale.heldout)
        found.oracle.append(world.oracle)
        for mode, values in found.of.items():
            often = {"checkpoint.interval": "200ms", "checkpoint.keep": 100} if seed == scale.seeds[0] else {}
            trained = train(resources(world, mode, 1, {}, {**TWO_AND_TWO, "synchronization.mode": mode, **often}))
            values.append(world.judge(trained))
            if often:
                found.curves.append(curve_of(mode, world, trained, scale.points))
    return found


def curve_of(mode: str, world: World, trained: Trained, points: int) -> Curve:
    """AUC of some epochs, about evenly far apart; no two of them hold the same samples."""
    by_samples = {m.samples: m for m in trained.epochs}
    counts = np.array(sorted(by_samples))
    wanted = np.linspace(0, counts[-1], points + 1)[1:]
    chosen = sorted({int(counts[np.abs(counts - w).argmin()]) for w in wanted})
    aucs = [world.heldout.auc(world.heldout.scores(trained.store, by_samples[n])) for n in chosen]
    return Curve(mode, chosen, aucs)


@dataclass
class Rows:
    """What one optimizer reached: AUC by seed, samples per second by seed, bytes of a row with its key."""

    rate: float
    auc: list[float] = field(default_factory=list)
    samples_per_s: list[float] = field(default_factory=list)
    bytes_per_row: float = 0.0


def compare_optimizers(scale: Scale, folder: Path) -> tuple[dict[str, Rows], list[float]]:
    """Learns the same samples with every row optimizer, Async; returns what each reached, and the oracle's AUCs."""
    found = {kind.value: Rows(rate) for kind, rate in RATES.items()}
    oracle = []
    for seed in scale.seeds[:3]:
        world = write_world(seed, folder / f"optimizers-{seed}", 1, scale.samples, scale.heldout)
        oracle.append(world.oracle)
        for kind, rows in found.items():
            optimizer = {"embeddings.defaults.optimizer": {"kind": kind, "learningRate": rows.rate}}
            trained = train(resources(world, kind, 1, optimizer, {**TWO_AND_TWO, "checkpoint.interval": "60s"}))
            rows.auc.append(world.judge(trained))
            rows.samples_per_s.append(trained.samples_per_s)
            files = [f for link in trained.epochs[-1].chain for f in link.files]
            rows.bytes_per_row = sum(f.rows * (4 * f.stride + 8) for f in files) / sum(f.rows for f in files)
    return found, oracle


@dataclass
class Days:
    """AUCs on the day after the last, by seed."""

    oracle: list[float] = field(default_factory=list)
    continued: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)


def compare_days(seeds: Sequence[int], days: int, samples: int, heldout: int, folder: Path) -> Days:
    """Learns day after day: one checkpoint continued; each day a training, warm-started; the last day alone."""
    found = Days()
    for seed in seeds:
        world = write_world(seed, folder / f"days-{seed}", days, samples, heldout)

        def learn(name: str, day: int, attempt: int = 1, world: World = world, **more: object) -> Trained:
            return train(resources(world, name, day, {}, {"checkpoint.interval": "60s", **more}), attempt)

        continued = learn("continued", 1)
        warm, before = continued, f"file://{world.folder}/continued"
        for day in range(2, days + 1):  # the second day starts from `continued` before that itself goes on
            warm = learn(f"warm-{day:02d}", day, warmStart={"uri": before})
            before = f"file://{world.folder}/warm-{day:02d}"
            continued = learn("continued", day, attempt=day)
        found.oracle.append(world.oracle)
        found.continued.append(world.judge(continued))
        found.warm.append(world.judge(warm))
        found.alone.append(world.judge(learn("alone", days)))
    return found


def _mean(values: Sequence[float]) -> str:
    """Mean and, of several, standard deviation."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _less(values: Sequence[float], than: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(values, than, strict=True)]


def print_modes(scale: Scale, folder: Path, picture: Path | None) -> dict[str, object]:
    """Prints the table of the modes; draws the curves of the first seed."""
    modes = compare_modes(scale, folder)
    print("| seed | oracle | Sync | Async | Sync - Async | oracle - Async |\n|---|---|---|---|---|---|")
    for k, seed in enumerate(scale.seeds):
        figures = [modes.oracle[k], modes.of["Sync"][k], modes.of["Async"][k], modes.lost[k]]
        print(f"| {seed} | " + " | ".join(f"{x:.4f}" for x in (*figures, modes.below_oracle("Async")[k])) + " |")
    print(f"| mean | | | | {_mean(modes.lost)} | {_mean(modes.below_oracle('Async'))} |\n")
    if picture is not None:
        picture.write_text(draw(modes.curves, modes.oracle[0]))
    return {
        "ours": round(statistics.fmean(modes.of["Async"]), 4),
        "peer": round(statistics.fmean(modes.of["Sync"]), 4),
        "lost": round(statistics.fmean(modes.lost), 4),
        "below_oracle": round(statistics.fmean(modes.below_oracle("Async")), 4),
        "spread": round(statistics.stdev(modes.lost), 4) if len(modes.lost) > 1 else None,
        "n": len(scale.seeds),
    }


def print_optimizers(scale: Scale, folder: Path) -> dict[str, object]:
    """Prints the table of the row optimizers."""
    found, oracle = compare_optimizers(scale, folder)
    default = found[SparseOptimizerKind.ROWWISE_ADAGRAD].auc
    print("| optimizer | rate | AUC | above RowwiseAdagrad | bytes of a row and its key | samples/s |")
    print("|---|---|---|---|---|---|")
    for kind, rows in found.items():
        above = "" if rows.auc is default else _mean(_less(default, rows.auc))
        pace = statistics.median(rows.samples_per_s)
        print(
            f"| {kind} | {rows.rate:g} | {statistics.fmean(rows.auc):.4f} | {above} | {rows.bytes_per_row:.0f} | "
            f"{pace:,.0f} |"
        )
    print(f"| oracle | | {statistics.fmean(oracle):.4f} | | | |\n")
    return {"optimizers": {kind: round(statistics.fmean(rows.auc), 4) for kind, rows in found.items()}}


def print_days(scale: Scale, folder: Path) -> dict[str, object]:
    """Prints the table of three days, judged by the fourth."""
    found = compare_days(scale.seeds[:3], 3, scale.day, scale.heldout, folder)
    print(f"| three days of {scale.day:,} samples | AUC on the fourth | above the last day alone |\n|---|---|---|")
    for name, values in (("one checkpoint, continued", found.continued), ("warm start every day", found.warm)):
        print(f"| {name} | {statistics.fmean(values):.4f} | {_mean(_less(found.alone, values))} |")
    print(f"| last day alone | {statistics.fmean(found.alone):.4f} | |")
    print(f"| oracle | {statistics.fmean(found.oracle):.4f} | |\n")
    ways = {"continued": found.continued, "warm_start": found.warm, "last_day_alone": found.alone}
    return {"days": {name: round(statistics.fmean(values), 4) for name, values in ways.items()}}


def main() -> None:
    """Prints the tables of the parts that were asked for, and one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_true", help="seconds; figures mean nothing")
    size.add_argument("--full", action="store_true", help="four seeds (three for optimizers and days), minutes")
    parser.add_argument("--picture", type=Path, metavar="SVG", help="draw AUC over samples of the first seed (modes)")
    parser.add_argument("parts", nargs="*", metavar="PART", help="modes, optimizers, days; all unless given")
    asked = parser.parse_args()
    scale = SMOKE if asked.smoke else FULL if asked.full else SHORT
    began = time.perf_counter()
    figures: dict[str, object] = {"name": "learning", "unit": "AUC", "samples": scale.samples}
    with tempfile.TemporaryDirectory(prefix="kuberec-learning-") as folder:
        parts: dict[str, Callable[[], dict[str, object]]] = {
            "modes": lambda: print_modes(scale, Path(folder), asked.picture),
            "optimizers": lambda: print_optimizers(scale, Path(folder)),
            "days": lambda: print_days(scale, Path(folder)),
        }
        if unknown := set(asked.parts) - set(parts):
            parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
        for name in asked.parts or parts:
            figures |= parts[name]()
    print(json.dumps({**figures, "seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
