"""Windows, exact AUC and the gate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from kuberec_api.training import Monitor, MonitorState
from kuberec_runtime.monitor import Gate, Window, auc


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=200))
def test_auc_equals_scikit_learn_with_ties(pairs: list[tuple[int, bool]]) -> None:
    predictions = np.array([p for p, _ in pairs], np.float32)
    labels = np.array([y for _, y in pairs], np.float32)
    if labels.min() == labels.max():
        assert auc(predictions, labels) is None
    else:
        assert auc(predictions, labels) == pytest.approx(roc_auc_score(labels, predictions), abs=1e-12)


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 25))
def test_a_window_holds_the_last_samples_in_order(sizes: list[int], size: int) -> None:
    window, everything = Window(size), np.arange(sum(sizes), dtype=np.float32)
    at = 0
    for n in sizes:
        window.add(everything[at : at + n], -everything[at : at + n])
        at += n
    predictions, labels = window.pairs()
    np.testing.assert_array_equal(predictions, everything[-size:])
    np.testing.assert_array_equal(labels, -everything[-size:])


def monitor(name: str, metric: str, **bounds: float) -> Monitor:
    return Monitor.model_validate({"name": name, "metric": metric, "window": 100, "range": bounds})


def test_a_window_that_is_not_full_holds_nothing_back() -> None:
    gate = Gate([monitor("positive-ratio", "PositiveRatio", min=0.4)])
    gate.add(np.zeros(99, np.float32), np.zeros(99, np.float32))
    verdict = gate.judge()
    assert verdict.open
    assert verdict.monitors[0].state is MonitorState.WARMING


def test_a_value_out_of_range_closes_the_gate_and_names_the_monitor() -> None:
    gate = Gate([monitor("positive-ratio", "PositiveRatio", min=0.4, max=0.6)])
    gate.add(np.zeros(100, np.float32), np.zeros(100, np.float32))
    verdict = gate.judge()
    assert not verdict.open
    assert verdict.reason == "PositiveRatioOutOfRange"
    assert "0.0000" in verdict.message
    assert "[0.4, 0.6]" in verdict.message


def test_the_gate_opens_again_when_the_values_come_back() -> None:
    gate = Gate([monitor("positive-ratio", "PositiveRatio", min=0.4)])
    gate.add(np.zeros(100, np.float32), np.zeros(100, np.float32))
    assert not gate.judge().open
    gate.add(np.zeros(100, np.float32), np.ones(100, np.float32))
    assert gate.judge().open


def test_windows_survive_a_checkpoint() -> None:
    gate = Gate([monitor("auc", "AUC", min=0.5)])
    rng = np.random.default_rng(0)
    gate.add(rng.random(100, np.float32), (rng.random(100) < 0.5).astype(np.float32))
    restored = Gate([monitor("auc", "AUC", min=0.5)])
    restored.restore(gate.state())
    assert restored.judge() == gate.judge()
