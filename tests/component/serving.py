"""A published model for the serving tests: rows that are a function of their key, and what must be scored with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from kuberec_api.layout import build_layout
from kuberec_api.model import RecModel
from kuberec_api.serving import RecServing
from kuberec_api.training import RowType
from kuberec_runtime.models.embed import assemble, plan_lookup
from kuberec_runtime.models.network import Network
from kuberec_runtime.publish.featurestore import Event, FeatureStore
from kuberec_runtime.publish.publication import Description, Publication, TableMeta, Version
from kuberec_runtime.publish.tier import Tier
from kuberec_runtime.table.buckets import split_key

NOW = 1_790_000_000_000
ITEMS = {f"i{n}": {"cate": f"c{n % 7}", "brand": f"b{n % 11}", "price": 1.5 * n} for n in range(200)}
USER = {"age": 30, "gender": "f", "cate_pref": {"c1": 0.5, "c3": 2.0}}
CLICKS = [(f"i{n}", "click", NOW - (50 - n) * 60_000) for n in range(50)]


def feed() -> tuple[RecModel, RecServing]:
    """The resources of examples/feed.yaml."""
    text = (Path(__file__).parents[2] / "examples" / "feed.yaml").read_text()
    documents = {d["kind"]: d for d in yaml.safe_load_all(text)}
    return RecModel.model_validate(documents["RecModel"]), RecServing.model_validate(documents["RecServing"])


@dataclass
class World:
    """A model whose row for (table, id, epoch) and whose dense weights are known functions."""

    model: RecModel
    url: str

    def __post_init__(self) -> None:
        self.plan = compile_plan(self.model.spec.features)
        self.layout = build_layout(self.model.spec, self.plan)
        self.network = Network(self.model.spec, self.layout)
        self.engine = Engine(self.plan)
        self.tier = Tier(self.url)

    def rows(self, ordinal: int, ids: np.ndarray, width: int, epoch: int) -> np.ndarray:
        """Rows float32[n, width], different for each table, id and epoch."""
        columns = np.arange(1, width + 1)
        return np.sin(ids[:, None] * 0.37 + ordinal * 1.7 + columns + epoch).astype(np.float32) * np.float32(0.2)

    def dense(self, epoch: int) -> np.ndarray:
        """The flat dense vector of an epoch."""
        return (np.cos(np.arange(self.network.size) * 0.11 + epoch) * 0.1).astype(np.float32)

    def features(
        self,
        user: dict[str, Any],
        keys: list[str],
        clicks: list[tuple[str, str, int]],
        now: int,
        changed: dict[str, dict[str, Any]] | None = None,
    ) -> Any:
        """Features straight from the engine; `changed` are items instead of those of `ITEMS`."""
        known = ITEMS | (changed or {})
        items = pa.record_batch(
            [
                pa.array([known.get(k, {}).get("brand") for k in keys], pa.string()),
                pa.array([known.get(k, {}).get("cate") for k in keys], pa.string()),
                pa.array(keys, pa.string()),
                pa.array([known.get(k, {}).get("price") for k in keys], pa.float64()),
            ],
            ["item.brand", "item.cate", "item.item_id", "item.price"],
        )
        behavior = {
            "item": [c[0] for c in clicks],
            "action": [c[1] for c in clicks],
            "ts": [c[2] for c in clicks],
            "cate": [known.get(c[0], {}).get("cate") for c in clicks],
        }
        return self.engine.rank({"user_id": "u1", **user}, items, {"hour": 12}, {"clicks": behavior}, now)

    def keys_of(self, features: Any) -> dict[str, np.ndarray]:
        """Ids by table that these features read."""
        out: dict[str, list[np.ndarray]] = {}
        names = {t.ordinal: n for n, t in self.layout.tables.items()}
        for keys in plan_lookup(self.layout, features).keys.values():
            ordinals, ids = split_key(keys)
            for ordinal in np.unique(ordinals).tolist():
                out.setdefault(names[ordinal], []).append(ids[ordinals == ordinal])
        return {table: np.concatenate(ids) for table, ids in out.items()}

    def publish(self, version: Version, ids: dict[str, np.ndarray], dtype: RowType = RowType.FLOAT32) -> str:
        """Publishes rows of `ids` and dense weights of `version.epoch`; returns the namespace."""
        widths = {n: t.width for n, t in self.layout.tables.items()}
        namespace = self.tier.namespace_of(self.plan.digest, widths, dtype)
        for name, wanted in ids.items():
            table = self.layout.tables[name]
            self.tier.write_rows(
                namespace, name, wanted, self.rows(table.ordinal, wanted, table.width, version.epoch), dtype
            )
        description = Description(
            version,
            self.plan.digest,
            "farm64",
            dtype,
            {n: TableMeta(t.ordinal, t.width, t.linear) for n, t in self.layout.tables.items()},
            ("click",),
            NOW,
            NOW,
        )
        self.tier.commit(Publication(namespace, description, self.network.named(self.dense(version.epoch)), ids))
        return namespace

    def scores(self, features: Any, epoch: int, found: bool = True) -> np.ndarray:
        """The scores that a replica must answer for these features at this epoch; without rows if not `found`."""
        lookup = plan_lookup(self.layout, features)
        rows = {}
        for width, keys in lookup.keys.items():
            rows[width] = np.zeros((keys.size, width), np.float32)
            ordinals, ids = split_key(keys)
            for ordinal in np.unique(ordinals).tolist() if found else []:
                mine = ordinals == ordinal
                rows[width][mine] = self.rows(ordinal, ids[mine], width, epoch)
        self.network.set_dense(self.dense(epoch))
        return self.network.score(assemble(self.layout, features, lookup, rows))

    def fill_store(self) -> None:
        """Puts the user `u1` with behaviour and all items into the feature store."""
        store = FeatureStore(self.url)
        store.put_users({"u1": USER})
        store.put_items(ITEMS)
        store.append_behavior("clicks", [Event("u1", *click) for click in CLICKS])
        store.close()
