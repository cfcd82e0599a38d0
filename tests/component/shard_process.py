"""A shard in a process of its own, driven by lines on stdin: what the tests kill. Run with `python -m`."""

import json
import sys
from pathlib import Path

import numpy as np

from kuberec_runtime.table import DenseState, Rows
from kuberec_runtime.wire import DedupeMark, Shard
from tests.unit.wire.shards import config


def main(index: int, shards: int, dense_size: int, port: int) -> None:
    shard = Shard(config(index, shards, dense_size=dense_size, widths=(2, 3)))
    print(json.dumps(shard.listen(port=port)), flush=True) if port >= 0 else None
    for line in sys.stdin:
        match line.split():
            case ["cut", epoch, path]:
                cut = shard.await_cut(int(epoch), "checkpoint", True, 30.0)
                arrays = {f"{n}-{w}": getattr(rows, n) for w, rows in cut.rows.items() for n in ("keys", "raw")}
                arrays |= {name: getattr(cut.dense, name) for name in ("weights", "m", "v")}
                np.savez(path, **arrays)  # type: ignore[arg-type]
                mark = cut.dedupe[0]
                rest = {"step": cut.dense.step, "applied": cut.applied, "mark": [mark.incarnation, mark.sequence]}
                Path(path + ".json").write_text(json.dumps(rest))
                print("taken", flush=True)
            case ["restore", epoch, path]:
                data, rest = np.load(path + ".npz"), json.loads(Path(path + ".json").read_text())
                rows = [(w, Rows(data[f"keys-{w}"], data[f"raw-{w}"])) for w in (2, 3)]
                dense = DenseState(data["weights"], data["m"], data["v"], rest["step"])
                applied = {int(p): n for p, n in rest["applied"].items()}
                shard.restore(rows, dense, applied, {0: DedupeMark(*rest["mark"])}, int(epoch))
                print("restored", flush=True)
            case ["listen", port_now]:
                print(json.dumps(shard.listen(port=int(port_now))), flush=True)
            case ["abort", epoch]:
                shard.abort_cut(int(epoch))
            case ["applied"]:
                print(json.dumps(shard.report().applied), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
