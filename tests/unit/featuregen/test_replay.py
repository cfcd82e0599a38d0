"""The replay check finds 0 mismatches in a recorded log, and every kind of skew that is planted into it."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from featuregen.compiler import compile_plan
from featuregen.engine import Backend, Engine
from featuregen.errors import FeatureError
from featuregen.plan import Operation, Plan
from featuregen.replay.check import Replayer, Report
from featuregen.replay.digests import digests
from featuregen.replay.events import EventLog
from featuregen.replay.files import open_file, read_batches
from featuregen.replay.snapshot import Snapshot, SnapshotError, SnapshotFormat, read_message
from featuregen.spec import FeatureSpec
from tests.unit.featuregen.cases import request_of
from tests.unit.featuregen.random_rows import random_rows
from tests.unit.featuregen.random_specs import OPERATORS, random_plan
from tests.unit.featuregen.record_golden import FILES, HOUR, NOW, REQUESTS, USERS, golden_plan, golden_spec, record


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


def readers(plan: Plan, prefix: str) -> set[str]:
    """Outputs that read such a column, themselves or through other features."""
    derived: set[str] = set()
    for derivation in plan.derivations:
        if any(column.startswith(prefix) or column in derived for column in _read(derivation.operation)):
            derived.add(derivation.column.name)
    return {
        operation.output.name
        for operation in plan.operations
        if any(column.startswith(prefix) or column in derived for column in _read(operation))
    }


def _read(operation: Operation) -> list[str]:
    return [*operation.read, *([f"behavior.{operation.behavior}"] if operation.behavior else [])]


def wrong(report: Report) -> dict[str, int]:
    return {name: tally.mismatches for name, tally in report.features.items() if tally.mismatches}


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_the_golden_log_has_no_mismatch(plan: Plan, backend: Backend) -> None:
    report = Replayer(plan, FILES, backend=backend).check(read_batches(open_file(str(REQUESTS))))
    assert report.other_plans == {}, "the plan changed: see record_golden.py"
    assert wrong(report) == {}
    assert report.requests == 4 * USERS
    assert {tally.requests for tally in report.features.values()} == {4 * USERS}


def test_a_changed_value_is_found_with_its_row(plan: Plan, log: pa.RecordBatch) -> None:
    def dearer(prices: list[list[float]]) -> list[list[float]]:
        prices[7][4] += 1000.0
        return prices

    report = Replayer(plan, FILES).check([changed(log, "item.price", dearer)])
    assert {"price", "price_e", "price_z"} <= set(wrong(report)) <= readers(plan, "item.price")
    assert set(wrong(report).values()) == {1}
    for name in wrong(report):
        example = report.features[name].example
        assert example is not None
        assert (example.request_id, example.row) == ("u1-3", 4)
        assert example.item == log.column("item_keys")[7][4].as_py()
        assert example.served != example.recomputed


def test_without_outputs_the_request_is_named_but_not_the_row(plan: Plan, log: pa.RecordBatch) -> None:
    bare = changed(log, "outputs", lambda rows: [None] * len(rows))
    report = Replayer(plan, FILES).check([changed(bare, "context.hour", lambda hours: [1, *hours[1:]])])
    assert wrong(report) == {"hour": 1}
    example = report.features["hour"].example
    assert example is not None
    assert (example.request_id, example.row, example.served, example.recomputed) == ("u0-0", None, None, [1])


def test_a_window_that_is_a_millisecond_off_is_found(plan: Plan, log: pa.RecordBatch) -> None:
    later = changed(log, "now", lambda times: [time + 1 for time in times])
    found = set(wrong(Replayer(plan, FILES).check([later])))
    assert {"clk", "clk_cate", "paid", "seq__age"} <= found <= readers(plan, "behavior.")


def test_one_tampered_digest_is_found(plan: Plan, log: pa.RecordBatch) -> None:
    def tampered(rows: list[list[int]]) -> list[list[int]]:
        rows[3][0] ^= 1
        return rows

    assert wrong(Replayer(plan, FILES).check([changed(log, "digests", tampered)])) == {plan.outputs[0].name: 1}


def test_a_changed_plan_is_not_replayed_but_explained(plan: Plan, log: pa.RecordBatch) -> None:
    spec = golden_spec()
    spec["list"][0]["encode"]["hashBuckets"] = 7
    other = compile_plan(FeatureSpec.model_validate(spec))
    report = Replayer(other, FILES).check([log])
    left_out = report.other_plans[plan.digest]
    assert (report.requests, left_out.requests) == (0, log.num_rows)
    assert left_out.differences == ["feature 'city': buckets 1000 -> 7"]


def test_code_that_means_another_thing_under_the_same_digest_is_found(plan: Plan, log: pa.RecordBatch) -> None:
    """What the digest of a plan cannot see: a defect in a kernel. Here one that counts a longer hour."""
    shifted = tuple(
        replace(o, windows_ms=(o.windows_ms[0] + 1, *o.windows_ms[1:])) if o.op == "window" else o
        for o in plan.operations
    )
    defective = replace(plan, operations=shifted)
    vars(defective)["digest"] = plan.digest
    found = set(wrong(Replayer(defective, FILES).check([log])))
    assert "clk" in found and found <= {o.output.name for o in plan.operations if o.op == "window"}


def test_a_log_without_a_column_of_the_plan_is_refused(plan: Plan, log: pa.RecordBatch) -> None:
    with pytest.raises(SnapshotError, match=r"no column 'item\.price'"):
        Replayer(plan, FILES).check([log.drop_columns(["item.price"])])


def test_parts_of_a_log_add_up_and_the_earliest_example_is_kept(plan: Plan, log: pa.RecordBatch) -> None:
    broken = changed(log, "context.hour", lambda hours: [hour + 1 for hour in hours])
    whole = Replayer(plan, FILES).check([broken])
    halves = [Replayer(plan, FILES).check([part]) for part in (broken.slice(10), broken.slice(0, 10))]
    total = Report.from_json(halves[0].to_json())
    total.add(halves[1])
    assert total == whole
    assert whole.features["hour"].mismatches == log.num_rows


def test_behaviour_from_the_event_log_is_what_was_served(plan: Plan, log: pa.RecordBatch, events: pa.Table) -> None:
    report = Replayer(plan, FILES, {"clicks": EventLog(plan, "clicks", events)}).check([log])
    assert wrong(report) == {}
    behavior = report.behaviors["clicks"]
    assert (behavior.requests, behavior.exact, behavior.missing, behavior.extra) == (log.num_rows, log.num_rows, 0, 0)


def test_an_event_that_came_too_late_is_missing_with_its_lag(plan: Plan, log: pa.RecordBatch, events: pa.Table) -> None:
    late = {**events.to_pylist()[0], "user": "u2", "item": "i9", "action": "click", "ts": NOW - 700}
    more = pa.concat_tables([events, pa.Table.from_pylist([late], events.schema)])
    report = Replayer(plan, FILES, {"clicks": EventLog(plan, "clicks", more)}).check([log])
    behavior = report.behaviors["clicks"]
    # All four requests of the user come after the event, by 0.7 s, half an hour, one hour, and more.
    assert (behavior.requests - behavior.exact, behavior.missing) == (4, 4)
    assert behavior.lags == [1, 0, 0, 0, 1, 2]
    assert set(wrong(report)) <= readers(plan, "behavior.") and wrong(report)["seq__item_id"] == 4
    assert {t.example.request_id[:2] for t in report.features.values() if t.example} == {"u2"}


def test_an_event_that_never_happened_is_extra(plan: Plan, log: pa.RecordBatch, events: pa.Table) -> None:
    newest = pc.and_(pc.equal(events.column("user"), "u4"), pc.equal(events.column("ts"), NOW - 1))
    fewer = EventLog(plan, "clicks", events.filter(pc.invert(newest)))
    behavior = Replayer(plan, FILES, {"clicks": fewer}).check([log]).behaviors["clicks"]
    assert (behavior.requests - behavior.exact, behavior.extra) == (4, 4)


def test_arrival_decides_between_events_of_the_same_time(plan: Plan) -> None:
    none = dict.fromkeys(("paid", "rank", "cate", "tags", "price"))
    given = [("a", NOW - 2), ("b", NOW - 2), ("c", NOW - 3)]
    events = pa.Table.from_pylist([{"user": "u", "item": i, "action": "click", "ts": ts, **none} for i, ts in given])
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


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_random_plans_replay_from_messages(backend: Backend) -> None:
    """Snapshots keep every type of field exactly, and digests do not depend on who computes."""
    for case in range(24):
        random = Random(case)
        plan, _ = random_plan(random, list(OPERATORS))
        rows = random_rows(random, plan, 3)
        engine = Engine(plan, FILES, "numpy" if backend == "numba" else "numba")
        request = engine.request(**request_of(plan, rows[0], rows))
        snapshot = Snapshot("r", plan.digest, "1.1", None, None, request, digests(engine.run(request)))
        message = SnapshotFormat(plan).message([snapshot, snapshot])
        report = Replayer(plan, FILES, backend=backend).check([read_message(message)])
        assert (report.requests, wrong(report)) == (2, {}), f"case {case}"
