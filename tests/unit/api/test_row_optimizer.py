"""An optimizer has its own fields and no others, said by CEL and by the types alike."""

import pytest
from pydantic import ValidationError

from kuberec_api.model import OPTIMIZER_FIELDS, SparseOptimizer, SparseOptimizerKind
from kuberec_api.rules import RULES


def test_defaults_are_those_of_the_papers() -> None:
    assert SparseOptimizer(kind=SparseOptimizerKind.ADAM).betas == (0.9, 0.999)
    assert SparseOptimizer(kind=SparseOptimizerKind.FTRL).penalties == (0, 0)


@pytest.mark.parametrize("field", sorted(OPTIMIZER_FIELDS))
@pytest.mark.parametrize("kind", list(SparseOptimizerKind))
def test_a_field_of_another_kind_is_refused_by_name(kind: SparseOptimizerKind, field: str) -> None:
    spec = {"kind": kind.value, field: 0.5}
    owner = OPTIMIZER_FIELDS[field]
    if kind is owner:
        assert getattr(SparseOptimizer.model_validate(spec), field) == 0.5
        return
    with pytest.raises(ValidationError, match=f"{kind.value} has no {field}: remove it, or set kind {owner.value}"):
        SparseOptimizer.model_validate(spec)


def test_cel_names_the_same_fields() -> None:
    for field, kind in OPTIMIZER_FIELDS.items():
        (rule,) = (r for r in RULES["SparseOptimizer"] if f"has(self.{field})" in r.rule)
        assert f"self.kind == '{kind.value}' ||" in rule.rule
        assert kind.value in rule.message and field in rule.message


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("Adam", "beta1", 1.0),
        ("Adam", "beta1", -0.1),
        ("Adam", "beta2", 1.0),
        ("FTRL", "l1", -1.0),
        ("FTRL", "l2", -1.0),
        ("Adam", "learningRate", 0.0),
    ],
)
def test_what_can_never_work_is_out_of_bounds(kind: str, field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        SparseOptimizer.model_validate({"kind": kind, field: value})


def test_it_survives_being_written_and_read() -> None:
    for spec in ({"kind": "Adam", "beta1": 0.5}, {"kind": "FTRL", "l1": 0.1}, {}):
        one = SparseOptimizer.model_validate(spec)
        assert SparseOptimizer.model_validate(one.model_dump(mode="json", by_alias=True)) == one
