import pytest
from pydantic import ValidationError

from kuberec_api.meta import bytes_of
from kuberec_api.model import EmbeddingTable, Eviction
from kuberec_runtime.table.eviction import EvictionRule
from kuberec_runtime.train.eviction import rule_of


def test_a_shard_evicts_by_its_share_of_the_models_budget() -> None:
    given = Eviction.model_validate({"idle": "720h", "maxRows": 10_000, "maxBytes": "4Gi", "halfLife": "1h"})
    assert rule_of(given, 4) == EvictionRule(idle_s=2_592_000, rows=2500, bytes=2**30, half_life_s=3600)
    assert rule_of(Eviction(idle="100ms"), 1) == EvictionRule(idle_s=1)
    assert rule_of(None, 3) is None


def test_an_eviction_that_evicts_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="idle, maxRows or maxBytes"):
        Eviction(half_life="1h")


@pytest.mark.parametrize("quantity", ["0", "0Gi", "3000m", "1023Ki"])
def test_a_budget_of_bytes_in_which_no_row_could_stay_is_refused(quantity: str) -> None:
    with pytest.raises(ValidationError, match=f"maxBytes {quantity}: give at least 1Mi"):
        Eviction(max_bytes=quantity)


@pytest.mark.parametrize(
    ("quantity", "expected"), [("1500", 1500), ("1.5Ki", 1536), ("2M", 2_000_000), ("3000m", 3), ("1Ti", 2**40)]
)
def test_quantities_are_kubernetes_ones(quantity: str, expected: int) -> None:
    assert bytes_of(quantity) == expected


@pytest.mark.parametrize("field", [{"eviction": {"idle": "1h"}}, {"admission": {"minCount": 3}}])
def test_neither_eviction_nor_admission_is_a_tables_own(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        EmbeddingTable.model_validate({"name": "cate", "dim": 8, **field})
