"""The second world: the same for a seed, with a behaviour of before, and effects that its columns tell."""

import math

import numpy as np
import pyarrow as pa
import pytest

from kuberec_runtime.monitor import auc
from kuberec_runtime.synth.operators import SCALE, make_operator_world
from kuberec_runtime.synth.oracle import auc_error, best_without, leaks
from kuberec_runtime.synth.planted import EFFECTS, HOUR_MS, MAX_AGE_MS, MAX_EVENTS, Planted, plant

SAMPLES = 6000


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(make_operator_world(3), 3, SAMPLES)


def column(table: pa.Table, name: str) -> list[list[object]]:
    return table.column(f"behavior.clicks.{name}").to_pylist()


def test_equal_seeds_plant_equal_samples_and_others_do_not(planted: Planted) -> None:
    again, other = plant(make_operator_world(3), 3, SAMPLES), plant(make_operator_world(4), 4, SAMPLES)
    assert again.table().equals(planted.table())
    assert not other.table().equals(planted.table())


def test_a_behaviour_is_what_was_clicked_before_and_a_leak_has_the_own_click(planted: Planted) -> None:
    honest, leaky = planted.table(), planted.table(MAX_AGE_MS)
    assert leaky.column("now").to_pylist() == [now + MAX_AGE_MS for now in honest.column("now").to_pylist()]
    for table, ahead in ((honest, 0), (leaky, MAX_AGE_MS)):
        for now, stamps in zip(planted.now.tolist(), column(table, "ts"), strict=True):
            assert stamps == sorted(stamps) and len(stamps) <= MAX_EVENTS
            assert all(now + ahead - MAX_AGE_MS <= ts < now + ahead for ts in stamps)
    own = [now in stamps for now, stamps in zip(planted.now.tolist(), column(leaky, "ts"), strict=True)]
    assert own == (planted.click == 1).tolist()


def test_the_effects_of_the_past_are_told_by_the_behaviour(planted: Planted) -> None:
    table = planted.table()
    rows = zip(*(column(table, name) for name in ("ts", "cate", "paid")), strict=True)
    told = []
    for now, cate, (stamps, cates, paid) in zip(
        planted.now.tolist(), table.column("item.cate").to_pylist(), rows, strict=True
    ):
        hour = sum(c == cate and now - t <= HOUR_MS for t, c in zip(stamps, cates, strict=True))
        told.append([math.log1p(hour), math.log1p(cates.count(cate)), math.log1p(sum(paid))])
    of_past = planted.effects[:, [EFFECTS.index(name) for name in ("clicks_1h", "clicks_24h", "paid_24h")]]
    for known, effect in zip(np.array(told).T, of_past.T, strict=True):
        assert known.any()
        np.testing.assert_allclose(effect, known * (effect.max() / known.max()), atol=1e-9)


def test_every_effect_moves_the_click_and_those_of_the_present_equally() -> None:
    planted = plant(make_operator_world(3), 3, 40_000)
    spread = dict(zip(EFFECTS, planted.effects.std(axis=0), strict=True))
    past = ("last", "clicks_1h", "clicks_24h", "paid_24h")
    assert all(abs(spread[name] - SCALE) < 0.02 for name in EFFECTS if name not in past), spread
    assert all(spread[name] > 0.3 for name in past), spread
    assert 0.1 < planted.click.mean() < 0.4


def test_knowing_all_but_a_useless_effect_costs_nothing_and_all_but_the_useful_one_everything() -> None:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(20_000, 2)) * [2.0, 0.0]
    effects[:, 1] += rng.normal(size=20_000)
    clicks = (rng.random(20_000) < 1 / (1 + np.exp(-effects[:, 0]))).astype(np.float32)
    kept, lost = (best_without(effects, clicks, k, 10_000).astype(np.float32) for k in (1, 0))
    assert auc(kept, clicks[10_000:]) == pytest.approx(auc(effects[10_000:, 0].astype(np.float32), clicks[10_000:]))
    assert auc(lost, clicks[10_000:]) == pytest.approx(0.5, abs=0.02)


def test_a_leak_is_what_chance_cannot_explain() -> None:
    clicks = np.repeat([1.0, 0.0], 500).astype(np.float32)
    assert auc_error(0.8, clicks) == pytest.approx(0.0140, abs=2e-4)
    assert leaks(0.8 + 0.05, 0.8, clicks)
    assert not leaks(0.8 + 0.03, 0.8, clicks)
