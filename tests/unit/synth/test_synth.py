import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featuregen.compiler import compile_plan
from kuberec_api import RecModel
from kuberec_runtime.synth import EFFECTS, Oracle, ParquetSink, Size, Stream, make_world
from kuberec_runtime.synth.encode import ArrowEncoder, JsonEncoder, arrow_message
from kuberec_runtime.synth.run import paced, run
from kuberec_runtime.synth.stream import ACTIONS, BUY, CLICK, HOUR_MS, MAX_AGE_MS, MAX_EVENTS
from kuberec_runtime.synth.world import category_key

SMALL = Size(users=300, items=200, categories=20, brands=30)


@pytest.fixture(scope="module")
def world():
    return make_world(11, SMALL)


@pytest.fixture(scope="module")
def hundred_thousand():
    return Stream(make_world(0)).batch(100_000)


def messages(world, samples):
    body, offsets = JsonEncoder(world).encode(samples)
    return [body[a:b] for a, b in itertools.pairwise(offsets)]


def test_the_first_samples_of_a_seed_never_change():
    """Whoever changes the generator changes every figure that was measured with it: bump this knowingly."""
    world = make_world(0)
    body, _ = JsonEncoder(world).encode(Stream(world).batch(2000))
    assert hashlib.sha256(body).hexdigest()[:16] == "f93a9b028ec6cbc1"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_a_sample_does_not_depend_on_how_many_are_asked_for_at_once(counts):
    world = make_world(11, SMALL)
    whole, parts = Stream(world).batch(sum(counts)), Stream(world)
    pieces = [parts.batch(count) for count in counts]
    assert b"".join(JsonEncoder(world).encode(piece)[0] for piece in pieces) == JsonEncoder(world).encode(whole)[0]
    assert [piece.first for piece in pieces] == np.cumsum([0, *counts[:-1]]).tolist()


def test_a_resumed_stream_goes_on_with_the_same_samples(world):
    whole, resumed = Stream(world), Stream(world)
    whole.batch(5000)
    resumed.skip(5000)
    assert messages(world, whole.batch(100)) == messages(world, resumed.batch(100))


def test_other_seeds_are_other_worlds():
    first, second = (make_world(seed, SMALL) for seed in (1, 2))
    assert messages(first, Stream(first).batch(10)) != messages(second, Stream(second).batch(10))


def test_the_best_possible_auc_leaves_something_to_learn_and_something_to_chance(hundred_thousand):
    oracle = Oracle()
    oracle.add(hundred_thousand)
    report = oracle.report()
    assert 0.75 < report.auc < 0.80
    assert 0.75 < report.tail_auc < 0.82
    assert 0.1 < report.click_ratio < 0.35
    assert (report.samples, report.tail_samples) == (100_000, 20_000)


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_planted_effect_is_worth_knowing(hundred_thousand, effect):
    oracle = Oracle()
    oracle.add(hundred_thousand)
    report = oracle.report()
    assert report.without[effect] < report.auc - 0.001


def test_clicks_follow_the_planted_probability(hundred_thousand):
    probability = 1 / (1 + np.exp(-hundred_thousand.logit.astype(np.float64)))
    for low, high in ((0.0, 0.1), (0.1, 0.2), (0.2, 0.4), (0.4, 1.0)):
        inside = (probability >= low) & (probability < high)
        spread = np.sqrt((probability[inside] * (1 - probability[inside])).sum())
        difference = hundred_thousand.click[inside].sum() - probability[inside].sum()
        assert abs(difference) < 4 * spread


def test_behaviour_is_what_the_user_did_before_and_nothing_else(world):
    samples = Stream(world, gap_ms=20_000).batch(6000)
    logged = {user: [] for user in range(SMALL.users)}
    bought = 0
    for k in range(len(samples)):
        user, item, now = samples.user[k], samples.item[k], samples.now[k]
        begin, end = samples.offsets[k], samples.offsets[k + 1]
        listed = list(
            zip(
                samples.event_item[begin:end],
                samples.event_action[begin:end],
                samples.event_ts[begin:end],
                strict=True,
            )
        )
        assert listed == [event for event in logged[user][-MAX_EVENTS:] if now - event[2] <= MAX_AGE_MS]
        hour = [
            event
            for event in listed
            if event[1] == CLICK
            and world.category[event[0]] == world.category[item]
            and now - HOUR_MS <= event[2] < now
        ]
        assert samples.effects[k, EFFECTS.index("clicks_1h")] == pytest.approx(0.4 * min(len(hour), 4))
        if samples.click[k]:
            logged[user].append((item, CLICK, now))
        if samples.buy[k]:
            logged[user].append((item, BUY, now))
            bought += 1
    assert bought > 20
    assert np.all(np.diff(samples.now) >= 0)


def test_json_says_what_the_sample_is(world):
    samples = Stream(world).batch(3000)
    for k, message in enumerate(messages(world, samples)):
        sample = json.loads(message)
        begin, end = samples.offsets[k], samples.offsets[k + 1]
        user, item = int(samples.user[k]), int(samples.item[k])
        assert sample == {
            "user": {"user_id": f"u{user}", **world.user_fields(user)},
            "item": {"item_id": f"i{item}", **world.item_fields(item)},
            "context": {"hour": int(samples.now[k] // HOUR_MS % 24)},
            "behavior": {
                "clicks": {
                    "item": [f"i{event}" for event in samples.event_item[begin:end]],
                    "action": [ACTIONS[action] for action in samples.event_action[begin:end]],
                    "ts": samples.event_ts[begin:end].tolist(),
                    "cate": [category_key(world.category[event]) for event in samples.event_item[begin:end]],
                }
            },
            "now": int(samples.now[k]),
            "label": {"click": int(samples.click[k])},
        }


def test_arrow_columns_say_the_same_as_json(world):
    samples = Stream(world).batch(2000)
    rows = ArrowEncoder(world).encode(samples).to_pylist()
    for row, message in zip(rows, messages(world, samples), strict=True):
        flat = {}
        for source, value in json.loads(message).items():
            if source == "behavior":
                flat |= {f"behavior.clicks.{name}": values for name, values in value["clicks"].items()}
            elif source == "now":
                flat["now"] = value
            else:
                flat |= {f"{source}.{name}": inner for name, inner in value.items()}
        row["user.cate_pref"] = dict(row["user.cate_pref"])
        assert {name: value for name, value in row.items() if value is not None} == flat


def test_samples_hold_every_column_that_the_example_reads(world):
    import pathlib

    import yaml

    path = pathlib.Path(__file__).parents[3] / "examples" / "feed.yaml"
    model = RecModel.model_validate(next(yaml.safe_load_all(path.read_text())))
    wanted = {column.name for column in compile_plan(model.spec.features).inputs}
    table = ArrowEncoder(world).encode(Stream(world).batch(10))
    assert wanted | {"label.click"} == set(table.column_names) | {"label.click"}
    assert len(arrow_message(table)) > 0


def test_some_users_have_unknown_fields(world):
    assert any("age" not in world.user_fields(user) for user in range(SMALL.users))
    assert any("gender" not in world.user_fields(user) for user in range(SMALL.users))


def test_a_backfill_becomes_a_live_stream_and_never_runs_backwards(world):
    stream = Stream(world, start_ms=1_000_000, gap_ms=100)
    stream.batch(100)
    reached = stream.clock_ms
    stream.set_clock(reached + 60_000, gap_ms=10)
    assert stream.batch(1).now[0] >= reached + 60_000
    stream.set_clock(0, gap_ms=10)
    assert stream.batch(1).now[0] >= reached + 60_000


def test_a_bounded_run_ends_at_its_number_and_a_stopped_one_at_once(world):
    assert [len(batch) for batch in paced(Stream(world), 25_000, 0)] == [10_000, 10_000, 5_000]
    assert list(paced(Stream(world), 0, 0, stop=lambda: True)) == []


@pytest.mark.parametrize("size", [{"users": 0}, {"items": 10}, {"categories": 3}])
def test_an_impossible_world_is_refused(size):
    with pytest.raises(ValueError, match="items"):
        Size(**size)


def test_files_hold_the_stream_in_order_and_are_not_written_over(tmp_path: Path):
    world = make_world(0, Size(users=50, items=40))
    run(Stream(world), ParquetSink(world, tmp_path, file_rows=700, group_rows=300), samples=1500)
    written = [pq.read_table(path) for path in sorted(tmp_path.iterdir())]
    assert [table.num_rows for table in written] == [700, 700, 100]
    assert pa.concat_tables(written).equals(ArrowEncoder(world).encode(Stream(world).batch(1500)))
    with pytest.raises(FileExistsError, match="holds Parquet files already"):
        ParquetSink(world, tmp_path)
