"""A pipeline.config's optimizer of rows becomes one that RecModel has; what has no counterpart is named."""

from typing import Any

import pytest

from featuregen.importer.pipeline import read_pipeline
from kuberec_api.model import SparseOptimizer

EXPONENTIAL = "exponential_decay_learning_rate { initial_learning_rate: 0.01 decay_factor: 0.9 }"


@pytest.mark.parametrize(
    ("config", "optimizer", "left_out"),
    [
        (
            "sparse_optimizer { adagrad_optimizer { lr: 0.01 } constant_learning_rate {} }",
            {"kind": "Adagrad", "learningRate": 0.01},
            [],
        ),
        ("sparse_optimizer { sgd_optimizer { lr: 0.5 } }", {"kind": "SGD", "learningRate": 0.5}, []),
        (
            "sparse_optimizer { adam_optimizer { lr: 0.001 beta1: 0.8 weight_decay: 0.1 } }",
            {"kind": "Adam", "learningRate": 0.001, "beta1": 0.8},
            ["adam_optimizer.weight_decay"],
        ),
        (
            f"optimizer_config {{ lazy_adam_optimizer {{ learning_rate {{ {EXPONENTIAL} }} beta2: 0.99 }} }}",
            {"kind": "Adam", "learningRate": 0.01, "beta2": 0.99},
            ["lazy_adam_optimizer.exponential_decay_learning_rate"],
        ),
        (
            "optimizer_config { ftrl_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.1 } } "
            "l1_reg: 0.5 l2_reg: 1.5 initial_accumulator_value: 0.2 } use_moving_average: false }",
            {"kind": "FTRL", "learningRate": 0.1, "l1": 0.5, "l2": 3.0},
            ["ftrl_optimizer.initial_accumulator_value", "use_moving_average"],
        ),
        ("sparse_optimizer { lamb_optimizer { lr: 0.1 } }", {}, ["lamb_optimizer"]),
        ("optimizer_config { ftrl_optimizer {} } optimizer_config { adam_optimizer {} }", {}, []),
    ],
)
def test_the_optimizer_of_rows(config: str, optimizer: dict[str, Any], left_out: list[str]) -> None:
    found = read_pipeline(f"train_config {{ {config} }}", "_")
    assert found.row_optimizer == optimizer
    assert found.left_out == [*left_out, "train_config"]
    read = SparseOptimizer.model_validate(found.row_optimizer).model_dump(by_alias=True, exclude_unset=True)
    assert read == optimizer
