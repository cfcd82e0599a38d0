"""What an event counts for: [now - w, now), the newest maxEvents, maxAge, actions. Each rule on its own."""

from typing import Any

import pytest

from featuregen.engine import Engine
from featuregen.oracle import compute_row
from tests.unit.featuregen.cases import plan_of, request_of, row_of, table_of

NOW = 1_000_000


def _counts(
    ages: list[int | None],
    windows: list[str],
    actions: list[str | None] | None = None,
    wanted: list[str] | None = None,
    events: int = 100,
    max_age: str = "1h",
    by: tuple[str, list[Any], Any] | None = None,
    now: int = NOW,
) -> list[float]:
    """Counts of one window feature, after checking that oracle, batch and ranking agree."""
    sources = {
        "item": {"key": "id", "fields": {"cate": "string", "year": "int"}},
        "behavior": {"log": {"maxEvents": events, "maxAge": max_age}},
    }
    feature: dict[str, Any] = {"name": "w", "op": "window", "behavior": "log", "windows": windows}
    row: dict[str, Any] = {"now": now, "behavior.log.ts": [None if age is None else now - age for age in ages]}
    if wanted:
        feature["actions"] = wanted
        row["behavior.log.action"] = actions
    if by:
        field, values, candidate = by
        feature["by"] = f"item.{field}"
        row[f"behavior.log.{'item' if field == 'id' else field}"] = values
        row[f"item.{field}"] = candidate
    plan = plan_of(sources, [feature])
    engine = Engine(plan)
    expected = compute_row(plan, row)
    assert row_of(engine.batch(table_of(plan, [row, row])), 1) == expected
    assert row_of(engine.rank(**request_of(plan, row, [row, row])), 1) == expected
    return list(map(float, expected["w"]))


def test_a_window_starts_exactly_w_before_now() -> None:
    assert _counts([1001, 1000, 999], ["1s"]) == [2]


def test_the_requests_own_event_at_now_is_never_counted() -> None:
    assert _counts([1, 0], ["1s"]) == [1]


def test_events_of_the_future_are_never_counted() -> None:
    assert _counts([5, -1, -1000], ["1s"]) == [1]


def test_a_larger_window_contains_the_smaller_ones() -> None:
    assert _counts([5000, 2000, 1500, 10], ["1s", "2s", "1m"]) == [1, 3, 4]


def test_events_of_the_same_time_all_count() -> None:
    assert _counts([1000, 1000, 1000], ["1s"]) == [3]


def test_of_events_of_the_same_time_the_last_to_arrive_stay_within_the_cap() -> None:
    values = ["a", "b", "c"]
    counts = {cate: _counts([7, 7, 7], ["1s"], events=2, by=("cate", values, cate)) for cate in values}
    assert counts == {"a": [0], "b": [1], "c": [1]}


def test_the_cap_counts_events_of_every_action() -> None:
    actions: list[str | None] = ["click", "show", "show"]
    assert _counts([30, 20, 10], ["1s"], actions=actions, wanted=["click"], events=2) == [0]


def test_the_cap_does_not_count_events_at_or_after_now() -> None:
    assert _counts([30, 20, 0, -5], ["1s"], events=2) == [2]


def test_events_older_than_max_age_are_not_seen_even_by_a_longer_list() -> None:
    assert _counts([2001, 2000, 10], ["2s"], max_age="2s") == [2]


def test_order_of_arrival_decides_not_time() -> None:
    assert _counts([10, 900, 800], ["500ms", "1s"], events=2) == [0, 2]


def test_an_event_without_time_is_no_event() -> None:
    assert _counts([None, 10], ["1s"], events=1) == [1]


def test_an_event_without_action_matches_no_action() -> None:
    assert _counts([3, 2, 1], ["1s"], actions=["click", None, ""], wanted=["click"]) == [1]


def test_an_unknown_item_counts_in_totals_but_not_by_attribute() -> None:
    assert _counts([2, 1], ["1s"]) == [2]
    assert _counts([2, 1], ["1s"], by=("cate", [None, "a"], "a")) == [1]


@pytest.mark.parametrize("candidate", [None, ""])
def test_a_candidate_without_the_attribute_counts_nothing(candidate: str | None) -> None:
    assert _counts([2, 1], ["1s"], by=("cate", [candidate, "a"], candidate)) == [0]


def test_a_list_that_is_not_aligned_with_the_events_is_missing() -> None:
    assert _counts([2, 1], ["1s"], by=("cate", ["a"], "a")) == [0]
    assert _counts([2, 1], ["1s"], actions=["click"], wanted=["click"]) == [0]


def test_attributes_may_be_the_item_itself_or_a_number() -> None:
    assert _counts([2, 1], ["1s"], by=("id", ["i1", "i2"], "i2")) == [1]
    assert _counts([2, 1], ["1s"], by=("year", [2024, 2025], 2024)) == [1]


def test_no_events_count_zero() -> None:
    assert _counts([], ["1s", "1h"]) == [0, 0]
