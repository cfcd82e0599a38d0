"""What /metrics says of the tables of trainings, from their statuses."""

from typing import Any

from prometheus_client import REGISTRY

from kuberec_operator.metrics import show_tables


def training(name: str, state: str = "Running") -> dict[str, Any]:
    shards = [{"shard": i, "rows": 100 + i, "rowBytes": 9000, "indexBytes": 2000} for i in range(2)]
    meta = {"namespace": "shop", "name": name}
    return {"kind": "RecTraining", "metadata": meta, "status": {"state": state, "memory": {"shards": shards}}}


def rows(name: str, shard: int) -> float | None:
    return REGISTRY.get_sample_value("kuberec_table_rows", {"namespace": "shop", "training": name, "shard": str(shard)})


def test_every_shard_of_a_training_that_runs_has_rows_and_bytes() -> None:
    show_tables([training("feed"), {"kind": "RecModel", "metadata": {"namespace": "shop", "name": "feed"}}])
    assert (rows("feed", 0), rows("feed", 1)) == (100, 101)
    labels = {"namespace": "shop", "training": "feed", "shard": "1"}
    assert REGISTRY.get_sample_value("kuberec_table_bytes", {**labels, "part": "rows"}) == 9000
    assert REGISTRY.get_sample_value("kuberec_table_bytes", {**labels, "part": "index"}) == 2000


def test_trainings_that_are_gone_or_rest_have_none() -> None:
    show_tables([training("feed"), training("other")])
    show_tables([training("other", "Suspended")])
    assert rows("feed", 0) is None and rows("other", 0) is None
