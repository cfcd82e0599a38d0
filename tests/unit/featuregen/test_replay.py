"""The replay check finds 0 mismatches in a recorded log, and every kind of skew that is planted into it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featuregen.compiler import compile_plan
from featuregen.engine import Backend
from featuregen.errors import FeatureError
from featuregen.plan import Plan
from featuregen.replay import Replayer, Report
from featuregen.replay_events import EventLog
from featuregen.snapshot import SnapshotError
from featuregen.snapshot_files import open_file, read_batches
from featuregen.spec import FeatureSpec
from tests.unit.featuregen.record_golden import HOUR, NOW, REQUESTS, USERS, golden_plan, golden_spec, record

CLICKS = {"clk_cate", "clk_all", "clk_seq__item_id", "clk_seq__cate"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return golden_plan()


@pytest.fixture(scope="module")
def recorded(plan: Plan) -> tuple[pa.RecordBatch, pa.Table]:
    return record(plan)


@pytest.fixture(scope="module")
def log(recorded: tuple[pa.RecordBatch, pa.Table]) -> pa.RecordBatch:
    return recorded[0]


@pytest.fixture(scope="module")
def events(recorded: tuple[pa.RecordBatch, pa.Table]) -> pa.Table:
    return recorded[1]


def changed(log: pa.RecordBatch, name: str, change: Callable[[list[Any]], list[Any]]) -> pa.RecordBatch:
    """The log with another column."""
    field = log.schema.field(name)
    columns = dict(zip(log.schema.names, log.columns, strict=True))
    columns[name] = pa.array(change(columns[name].to_pylist()), field.type)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=log.schema)


def wrong(report: Report) -> dict[str, int]:
    return {name: tally.mismatches for name, tally in report.features.items() if tally.mismatches}


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_the_golden_log_has_no_mismatch(plan: Plan, backend: Backend) -> None:
    report = Replayer(plan, backend=backend).check(read_batches(open_file(str(REQUESTS))))
    assert report.other_plans == {}, "the plan changed: see record_golden.py"
    assert wrong(report) == {}
    assert report.requests == 4 * USERS
    assert {tally.requests for tally in report.features.values()} == {4 * USERS}


def test_a_changed_value_is_found_with_its_row(plan: Plan, log: pa.RecordBatch) -> None:
    def dearer(prices: list[list[float]]) -> list[list[float]]:
        prices[7][4] += 1000.0
        return prices

    report = Replayer(plan).check([changed(log, "item.price", dearer)])
    assert wrong(report) == {"price": 1, "price_b": 1}
    example = report.features["price_b"].example
    assert example is not None
    assert (example.request_id, example.row) == ("u1-3", 4)
    assert example.item == log.column("item_keys")[7][4].as_py()
    assert (example.served, example.recomputed) != (example.recomputed, example.served)
    assert example.recomputed == [4]


def test_without_outputs_the_request_is_named_but_not_the_row(plan: Plan, log: pa.RecordBatch) -> None:
    bare = changed(log, "outputs", lambda rows: [None] * len(rows))
    report = Replayer(plan).check([changed(bare, "context.hour", lambda hours: [1, *hours[1:]])])
    assert wrong(report) == {"hour": 1}
    example = report.features["hour"].example
    assert example is not None
    assert (example.request_id, example.row, example.served, example.recomputed) == ("u0-0", None, None, [1])


def test_a_window_that_is_a_millisecond_off_is_found(plan: Plan, log: pa.RecordBatch) -> None:
    later = changed(log, "now", lambda times: [time + 1 for time in times])
    assert set(wrong(Replayer(plan).check([later]))) == CLICKS


def test_one_tampered_digest_is_found(plan: Plan, log: pa.RecordBatch) -> None:
    def tampered(rows: list[list[int]]) -> list[list[int]]:
        rows[3][0] ^= 1
        return rows

    assert wrong(Replayer(plan).check([changed(log, "digests", tampered)])) == {plan.outputs[0].name: 1}


def test_a_changed_plan_is_not_replayed_but_explained(plan: Plan, log: pa.RecordBatch) -> None:
    spec = golden_spec()
    spec["list"][0]["encode"]["hashBuckets"] = 7
    other = compile_plan(FeatureSpec.model_validate(spec))
    report = Replayer(other).check([log])
    left_out = report.other_plans[plan.digest]
    assert (report.requests, left_out.requests) == (0, log.num_rows)
    assert left_out.differences == ["feature 'user_id': buckets 1000003 -> 7"]


def test_code_that_means_another_thing_under_the_same_digest_is_found(plan: Plan, log: pa.RecordBatch) -> None:
    """What the digest of a plan cannot see: a defect in a kernel. Here one that counts a longer hour."""
    shifted = tuple(
        replace(o, windows_ms=(o.windows_ms[0] + 1, *o.windows_ms[1:])) if o.op == "window" else o
        for o in plan.operations
    )
    defective = replace(plan, operations=shifted)
    vars(defective)["digest"] = plan.digest
    assert set(wrong(Replayer(defective).check([log]))) == {"clk_cate", "clk_all"}


def test_a_log_without_a_column_of_the_plan_is_refused(plan: Plan, log: pa.RecordBatch) -> None:
    with pytest.raises(SnapshotError, match=r"no column 'item\.price'"):
        Replayer(plan).check([log.drop_columns(["item.price"])])


def test_parts_of_a_log_add_up_and_the_earliest_example_is_kept(plan: Plan, log: pa.RecordBatch) -> None:
    broken = changed(log, "user.gender", lambda values: ["m" if value == "f" else "f" for value in values])
    whole = Replayer(plan).check([broken])
    halves = [Replayer(plan).check([part]) for part in (broken.slice(10), broken.slice(0, 10))]
    total = Report.from_json(halves[0].to_json())
    total.add(halves[1])
    assert total == whole
    assert whole.features["gender"].mismatches == log.num_rows


def test_behaviour_from_the_event_log_is_what_was_served(plan: Plan, log: pa.RecordBatch, events: pa.Table) -> None:
    report = Replayer(plan, events={"clicks": EventLog(plan, "clicks", events)}).check([log])
    assert wrong(report) == {}
    behavior = report.behaviors["clicks"]
    assert (behavior.requests, behavior.exact, behavior.missing, behavior.extra) == (log.num_rows, log.num_rows, 0, 0)


def test_an_event_that_came_too_late_is_missing_with_its_lag(plan: Plan, log: pa.RecordBatch, events: pa.Table) -> None:
    late = {"user": "u2", "item": "i9", "action": "click", "ts": NOW - 700, "cate": "c3"}
    more = pa.concat_tables([events, pa.Table.from_pylist([late], events.schema)])
    report = Replayer(plan, events={"clicks": EventLog(plan, "clicks", more)}).check([log])
    behavior = report.behaviors["clicks"]
    # Of the user's four requests all are after the event; each had 20 events, so one falls out at the other end.
    assert (behavior.requests - behavior.exact, behavior.missing) == (4, 4)
    assert behavior.lags == [1, 0, 0, 0, 1, 2]
    assert set(wrong(report)) <= CLICKS and wrong(report)["clk_seq__item_id"] == 4
    assert {t.example.request_id[:2] for t in report.features.values() if t.example} == {"u2"}


def test_an_event_that_never_happened_is_extra(plan: Plan, log: pa.RecordBatch, events: pa.Table) -> None:
    newest = pc.and_(pc.equal(events.column("user"), "u4"), pc.equal(events.column("ts"), NOW - 1))
    fewer = EventLog(plan, "clicks", events.filter(pc.invert(newest)))
    behavior = Replayer(plan, events={"clicks": fewer}).check([log]).behaviors["clicks"]
    assert (behavior.requests - behavior.exact, behavior.extra) == (4, 4)


def test_arrival_decides_between_events_of_the_same_time(plan: Plan) -> None:
    events = pa.table({n: ["u"] * 3 if n == "user" else ["a", "b", "c"] for n in ("user", "item", "action", "cate")})
    events = events.append_column("ts", pa.array([NOW - 2, NOW - 2, NOW - 3]))
    flat = "behavior.clicks.item"
    assert EventLog(plan, "clicks", events).lists("u", NOW)[flat].to_pylist() == [["c", "a", "b"]]
    arrived = EventLog(plan, "clicks", events.append_column("seq", pa.array([3, 1, 2])))
    assert arrived.lists("u", NOW)[flat].to_pylist() == [["b", "c", "a"]]
    assert arrived.lists("nobody", NOW)[flat].to_pylist() == [[]]
    assert arrived.lists("u", NOW - 2)[flat].to_pylist() == [["c"]]
    assert arrived.lists("u", NOW + 24 * HOUR)[flat].to_pylist() == [[]]


def test_an_event_log_without_an_attribute_that_is_read_is_refused(plan: Plan, events: pa.Table) -> None:
    with pytest.raises(FeatureError, match="the event log of 'clicks' has no column 'cate'"):
        EventLog(plan, "clicks", events.drop_columns(["cate"]))
    with pytest.raises(FeatureError, match="no feature reads a behaviour 'views'"):
        EventLog(plan, "views", events)
