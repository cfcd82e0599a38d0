"""A worker that pushes for ever, for tests that kill it: prints each sequence before it pushes."""

import json
import sys

import numpy as np

from kuberec_runtime.wire import Patience, ShardPool, Terms
from tests.unit.wire.shards import DIGEST, TOKEN

ROWS = 20_000


def main(addresses: str, first: int, share: str) -> None:
    terms = Terms(share=share == "share")
    places = [(str(host), int(port)) for host, port in json.loads(addresses)]
    pool = ShardPool.connect(places, TOKEN, DIGEST, 0, 0, Patience(connect=5, reconnect=10, answer=60), terms)
    print(" ".join(pool.ways), flush=True)
    keys = {2: np.arange(ROWS)}
    grads = {2: np.ones((ROWS, 2), np.float32)}
    for sequence in range(first, 1 << 40):
        print(sequence, flush=True)
        pool.push(sequence, keys, grads, np.ones(0, np.float32), {0: 1})
        pool.wait(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
