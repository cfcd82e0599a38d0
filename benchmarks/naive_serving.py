"""The peer of `serve_rank`: the stack that one writes first. Serve's proxy, JSON, redis-py per table, `model.predict`.

It is given our feature engine, our network and our rows, so the difference is the path alone: no row cache, no
deduplication, one MGET for each table, one GET for each feature-store entity kind, Keras' predict.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from starlette.requests import Request

from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from kuberec_api.layout import build_layout
from kuberec_api.model import RecModel
from kuberec_runtime.models.network import Network
from kuberec_runtime.publish.publication import Version, row_prefix, unpack_dense


class Naive:
    """One replica."""

    def __init__(self, model: dict[str, Any], url: str, namespace: str) -> None:
        import redis
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        spec = RecModel.model_validate(model).spec
        self.plan = compile_plan(spec.features)
        self.layout = build_layout(spec, self.plan)
        self.engine = Engine(self.plan)
        self.network = Network(spec, self.layout)
        self.redis = redis.Redis.from_url(url)
        self.namespace = namespace
        dense = unpack_dense(self.redis.get(f"{namespace}/dense/{Version(1, 1)}"))
        self.network.set_dense(self.network.flat(dense.weights))

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Ranks."""
        import msgpack

        body = await request.json()
        user_id, keys = body["user"]["user_id"], body["items"]
        user = msgpack.unpackb(self.redis.get(f"kr:default/user/{user_id}"))
        events = [msgpack.unpackb(e) for e in self.redis.lrange(f"kr:default/behavior/clicks/{user_id}", -50, -1)]
        seen = [e[0] for e in events]
        stored = [msgpack.unpackb(i) for i in self.redis.mget([f"kr:default/item/{k}" for k in keys + seen])]
        items = pa.record_batch(
            {
                "item.item_id": pa.array(keys),
                **{f"item.{f}": pa.array([i[f] for i in stored[: len(keys)]]) for f in ("brand", "cate")},
                "item.price": pa.array([i["price"] for i in stored[: len(keys)]], pa.float64()),
            }
        )
        behavior = {
            "item": seen,
            "action": [e[1] for e in events],
            "ts": [e[2] for e in events],
            "cate": [i["cate"] for i in stored[len(keys) :]],
        }
        features = self.engine.rank(
            {"user_id": user_id, **user}, items, body["context"], {"clicks": behavior}, body["now"]
        )
        x = self._assemble(features, len(keys))
        scores = self.network.model.predict(x, verbose=0)[:, 0]
        return {"scores": {"click": (1 / (1 + np.exp(-scores))).tolist()}}

    def _assemble(self, features: Any, count: int) -> np.ndarray:
        x = np.zeros((count, self.layout.dimension), np.float32)
        for slot in self.layout.sparse:
            column, table = features.columns[slot.output], slot.table
            prefix = row_prefix(self.namespace, table.name)
            found = (
                self.redis.mget([prefix + i.to_bytes(8, "little") for i in column.ids.tolist()])
                if column.ids.size
                else []
            )
            rows = np.array([np.frombuffer(r, np.float32) for r in found]).reshape(-1, table.width)
            sums = np.zeros((column.offsets.size - 1, table.width), np.float32)
            np.add.at(sums, np.repeat(np.arange(sums.shape[0]), np.diff(column.offsets)), rows)
            if slot.mean:
                sums /= np.maximum(np.diff(column.offsets), 1)[:, None]
            x[:, slot.column : slot.column + slot.width] = sums[:, int(table.linear) :]
            if slot.linear_column >= 0:
                x[:, slot.linear_column] = sums[:, 0]
        for slot in self.layout.dense:
            values = features.columns[slot.output].values
            x[:, slot.column : slot.column + slot.width] = np.sign(values) * np.log1p(np.abs(values))
        return x


def main(path: str, port: int) -> None:
    """Serves until the process is ended."""
    import signal

    import ray
    from ray import serve

    given = json.loads(Path(path).read_text())
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "WARNING"})
    deployment = serve.deployment(
        Naive, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0}, logging_config={"enable_access_log": False}
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    serve.run(deployment.bind(given["model"], given["url"], given["namespace"]), name="naive", route_prefix="/rank")
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
