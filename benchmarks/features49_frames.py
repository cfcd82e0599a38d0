"""The 49 features in Polars and in pandas, as one would write them for speed: the item side is computed once for all.

A request begins with candidates' keys, a user's snapshot as Python values, and his events. Ids come from the library's
own string hash, which is faster than a portable one, so the comparison leans to its side.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from benchmarks.features49 import (
    BOUNDARIES,
    COMBO_BUCKETS,
    COMBOS,
    COUNTERS,
    HOUR,
    ITEM_IDS,
    LENGTH,
    LISTS,
    LOOKUPS,
    MATCHES,
    OVERLAPS,
    TOTALS,
    USER_IDS,
    USER_NUMBERS,
)

Result = tuple[Any, dict[str, Any]]
"""A frame of the outputs that each candidate has, and the user's outputs by name."""


class PolarsFeatures:
    """Polars, eager, in one thread (set POLARS_MAX_THREADS before it is imported)."""

    def __init__(self, items: pa.RecordBatch) -> None:
        raw = pl.DataFrame(pa.Table.from_batches([items])).rename(lambda name: name.removeprefix("item."))
        self._rows = {key: row for row, key in enumerate(raw["item_id"].to_list())}
        self.items = pl.concat([raw.select(*ITEM_IDS, *LISTS), self.item_side(raw)], how="horizontal")

    @staticmethod
    def item_side(raw: pl.DataFrame) -> pl.DataFrame:
        """The outputs that an item alone decides."""
        ids = [(pl.col(name).hash() % buckets).alias(f"out_{name}") for name, buckets in ITEM_IDS.items()]
        lists = [
            pl.col(name).list.eval(pl.element().hash() % buckets).alias(f"out_{name}")
            for name, buckets in LISTS.items()
        ]
        ctr = pl.col("ctr_1d")
        numbers = [
            pl.when(ctr > 1e-10).then(ctr.log10()).otherwise(-10.0).cast(pl.Float32).alias("out_ctr_1d"),
            ((pl.col("ctr_7d") - 0.05) / 0.02).cast(pl.Float32).alias("out_ctr_7d"),
        ]
        buckets = [
            pl.Series([float(b) for b in bounds]).search_sorted(raw[name], side="right").alias(f"out_{name}")
            for name, bounds in BOUNDARIES.items()
        ]
        return raw.select(*ids, *lists, *numbers).with_columns(buckets)

    def rank(self, keys: Sequence[str], request: Mapping[str, Any]) -> Result:
        """One request with the item side at hand."""
        rows = self._rows
        return self.cross(self.items[[rows[key] for key in keys]], request)

    def rank_without_cache(self, raw: pl.DataFrame, request: Mapping[str, Any]) -> Result:
        """One request whose candidates' columns come along."""
        return self.cross(pl.concat([raw.select(*ITEM_IDS, *LISTS), self.item_side(raw)], how="horizontal"), request)

    @staticmethod
    def cross(items: pl.DataFrame, request: Mapping[str, Any]) -> Result:
        """What depends on the user."""
        user, log, now = request["user"], request["behavior"]["clicks"], request["now_ms"]
        events = pl.DataFrame(log).filter((pl.col("ts") < now) & (pl.col("ts") >= now - 24 * HOUR))
        made = [
            (pl.concat_str([pl.lit(user[a]), pl.col(b)], separator="_").hash() % COMBO_BUCKETS).alias(name)
            for name, (a, b) in COMBOS.items()
        ]
        made += [_replaced(pl.col(key), user[name]).alias(f"u_{name}") for name, key in LOOKUPS.items()]
        for name, (outer, inner) in MATCHES.items():
            flat = {f"{p}\t{s}": value for p, entries in user[name].items() for s, value in entries.items()}
            made.append(_replaced(pl.concat_str([outer, inner], separator="\t"), flat).alias(f"u_{name}"))
        for name, (words, column, method) in OVERLAPS.items():
            known = pl.Series(user[words])
            if method == "query_common_ratio":
                common = pl.col(column).list.eval(pl.element().is_in(known.implode())).list.sum() / len(known)
            else:
                common = pl.col(column).list.eval(pl.element().is_in(known.implode())).list.mean()
            made.append(common.cast(pl.Float32).alias(name))
        for name, (column, action, hours) in COUNTERS.items():
            seen = events.filter((pl.col("action") == action) & (pl.col("ts") >= now - hours * HOUR))
            counts = seen["item" if column == "item_id" else column].value_counts()
            pairs = dict(zip(counts[:, 0].to_list(), counts[:, 1].to_list(), strict=True))
            made.append(_replaced(pl.col(column), pairs).alias(name))
        clicks = events.filter(pl.col("action") == "click")
        newest = clicks.tail(LENGTH)
        side: dict[str, Any] = {
            f"user_{name}": pl.Series([user[name]]).hash() % buckets for name, buckets in USER_IDS.items()
        }
        side |= {f"user_{name}": user[name] for name in USER_NUMBERS}
        side |= {name: int((clicks["ts"] >= now - hours * HOUR).sum()) for name, hours in TOTALS.items()}
        side["recent__item_id"] = newest["item"].hash() % ITEM_IDS["item_id"]
        side["recent__cate"] = newest["cate"].hash() % ITEM_IDS["cate"]
        side["recent__age_s"] = ((now - newest["ts"]) / 1000).cast(pl.Float32)
        return items.with_columns(made), side


def _replaced(column: pl.Expr, values: Mapping[str, float]) -> pl.Expr:
    return column.replace_strict(list(values), list(values.values()), default=0.0, return_dtype=pl.Float32)


class PandasFeatures:
    """pandas with the item side computed once; its hash is `pandas.util.hash_array`."""

    def __init__(self, items: pa.RecordBatch) -> None:
        frame = pa.Table.from_batches([items]).to_pandas()
        frame.columns = [name.removeprefix("item.") for name in frame.columns]
        frame = frame.set_index("item_id", drop=False)
        for name, buckets in ITEM_IDS.items():
            frame[f"out_{name}"] = _hashed(frame[name].to_numpy(object), buckets)
        for name, buckets in LISTS.items():
            frame[f"out_{name}"] = [_hashed(np.asarray(words, object), buckets) for words in frame[name]]
        for name, bounds in BOUNDARIES.items():
            frame[f"out_{name}"] = np.searchsorted(bounds, frame[name], side="right")
        frame["out_ctr_1d"] = np.log10(frame["ctr_1d"]).astype(np.float32)
        frame["out_ctr_7d"] = ((frame["ctr_7d"] - 0.05) / 0.02).astype(np.float32)
        self.items = frame.drop(columns=[*BOUNDARIES, "ctr_1d", "ctr_7d"])

    def rank(self, keys: Sequence[str], request: Mapping[str, Any]) -> Result:
        """One request with the item side at hand."""
        items = self.items.loc[keys]
        user, log, now = request["user"], request["behavior"]["clicks"], request["now_ms"]
        events = pd.DataFrame(log)
        events = events[(events["ts"] < now) & (events["ts"] >= now - 24 * HOUR)]
        made: dict[str, Any] = {}
        for name, (a, b) in COMBOS.items():
            made[name] = _hashed((user[a] + "_" + items[b]).to_numpy(object), COMBO_BUCKETS)
        for name, key in LOOKUPS.items():
            made[f"u_{name}"] = items[key].map(user[name]).fillna(0.0).to_numpy(np.float32)
        for name, (outer, inner) in MATCHES.items():
            flat = {f"{p}\t{s}": value for p, entries in user[name].items() for s, value in entries.items()}
            made[f"u_{name}"] = (items[outer] + "\t" + items[inner]).map(flat).fillna(0.0).to_numpy(np.float32)
        for name, (words, column, method) in OVERLAPS.items():
            known = set(user[words])
            common = [sum(word in known for word in title) for title in items[column]]
            lengths = len(user[words]) if method == "query_common_ratio" else [len(title) for title in items[column]]
            made[name] = (np.array(common) / lengths).astype(np.float32)
        for name, (column, action, hours) in COUNTERS.items():
            seen = events[(events["action"] == action) & (events["ts"] >= now - hours * HOUR)]
            counts = seen["item" if column == "item_id" else column].value_counts()
            made[name] = items[column].map(counts).fillna(0.0).to_numpy(np.float32)
        clicks = events[events["action"] == "click"]
        newest = clicks.iloc[-LENGTH:]
        side: dict[str, Any] = {
            f"user_{name}": _hashed(np.array([user[name]], object), buckets) for name, buckets in USER_IDS.items()
        }
        side |= {f"user_{name}": user[name] for name in USER_NUMBERS}
        side |= {name: int((clicks["ts"] >= now - hours * HOUR).sum()) for name, hours in TOTALS.items()}
        side["recent__item_id"] = _hashed(newest["item"].to_numpy(object), ITEM_IDS["item_id"])
        side["recent__cate"] = _hashed(newest["cate"].to_numpy(object), ITEM_IDS["cate"])
        side["recent__age_s"] = ((now - newest["ts"]) / 1000).to_numpy(np.float32)
        return items.assign(**made), side


def _hashed(texts: Any, buckets: int) -> Any:
    return pd.util.hash_array(texts, categorize=False) % np.uint64(buckets)
