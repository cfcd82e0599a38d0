import pytest

from kuberec_api import RecModel
from kuberec_operator.plan.model import plan
from tests.unit.operator.resources import NOW, condition, documents


def broken(change: str) -> RecModel:
    body = documents()[0]
    features = body["spec"]["features"]["list"]
    if change == "feature":
        next(f for f in features if f["name"] == "u_cate")["map"] = "user.cate_prefs"
    else:
        body["spec"]["network"]["groups"]["deep"].append("pricee")
    return RecModel.model_validate(body)


def test_a_good_model_says_what_it_compiled_to() -> None:
    decision = plan(RecModel.model_validate(documents()[0]), NOW)
    assert condition(decision, "Ready")["status"] == "True"
    status = decision.status or {}
    assert (status["features"], status["tables"], len(status["digest"])) == (13, 8, 12)


@pytest.mark.parametrize(
    ("change", "reason", "hint"), [("feature", "InvalidFeature", "cate_pref"), ("network", "InvalidNetwork", "price")]
)
def test_a_mistake_is_named_with_a_way_to_mend_it(change: str, reason: str, hint: str) -> None:
    ready = condition(plan(broken(change), NOW), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", reason)
    assert hint in ready["message"]


@pytest.mark.parametrize(("config_map", "ready"), [(None, "False"), ({"name": "words", "key": "brands.txt"}, "True")])
def test_a_file_comes_from_a_config_map(config_map: dict[str, str] | None, ready: str) -> None:
    body = documents()[0]
    features = body["spec"]["features"]
    features["files"] = {"brands": {"sha256": "ab" * 32, "configMap": config_map}}
    brand = next(f for f in features["list"] if f["name"] == "brand")
    brand["encode"] = {"vocabFile": "brands", "unknown": 0, "vocabSize": 300}
    said = condition(plan(RecModel.model_validate(body), NOW), "Ready")
    assert said["status"] == ready
    if config_map is None:
        assert "file 'brands' has no configMap" in said["message"]
        assert "files.brands.configMap: {name: ..., key: ...}" in said["message"]


def test_a_mended_model_recovers() -> None:
    wrong = plan(broken("feature"), NOW)
    mended = RecModel.model_validate({**documents()[0], "status": wrong.status})
    assert condition(plan(mended, NOW), "Ready")["status"] == "True"


def test_the_same_model_is_announced_once() -> None:
    first = plan(RecModel.model_validate(documents()[0]), NOW)
    again = plan(RecModel.model_validate({**documents()[0], "status": first.status}), NOW)
    assert (len(first.events), len(again.events), again.status) == (1, 0, first.status)
