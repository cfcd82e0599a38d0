"""The generated CRDs: fresh, structural, and complete."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from kuberec_api import RecModel, RecServing, RecTraining
from kuberec_api.crd import KINDS, definition, main, outputs
from kuberec_api.rules import IMMUTABLE, LIST_KEYS, RULES

EXAMPLE = Path(__file__).parents[3] / "examples" / "feed.yaml"


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from nodes(schema[name], f"{path}[]")


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in KINDS:
        root = definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        yield from nodes(root, kind.name)


def test_the_committed_files_are_what_the_types_say() -> None:
    assert main(["--check"]) == 0


def test_a_stale_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kuberec_api.crd.REPOSITORY", tmp_path)
    assert main(["--check"]) == 1
    assert main(["--write"]) == 0
    assert main(["--check"]) == 0
    assert all(path.is_relative_to(tmp_path) for path in outputs())


def test_every_schema_is_structural() -> None:
    for path, schema in schemas():
        assert "$ref" not in schema, path
        assert "anyOf" not in schema, path
        assert schema.get("type") or schema.get("x-kubernetes-preserve-unknown-fields"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path


def test_every_text_and_list_of_a_spec_is_bounded() -> None:
    for path, schema in schemas():
        if ".spec" not in path or path.endswith(".spec"):
            continue
        if schema.get("type") == "array":
            assert "maxItems" in schema, path
        if schema.get("type") == "string" and "enum" not in schema:
            assert "maxLength" in schema or len(schema.get("pattern", "")) < 20, path


def test_every_rule_and_list_key_belongs_to_a_type_that_exists() -> None:
    known = {
        name for kind in KINDS for t in (kind.spec, kind.status) for name in t.model_json_schema().get("$defs", {})
    }
    known |= {t.__name__ for kind in KINDS for t in (kind.spec, kind.status)}
    assert set(RULES) | set(IMMUTABLE) | set(LIST_KEYS) <= known


def test_a_status_has_no_defaults() -> None:
    assert not [path for path, schema in schemas() if ".status" in path and "default" in schema]


def test_the_example_is_valid() -> None:
    types = {"RecModel": RecModel, "RecTraining": RecTraining, "RecServing": RecServing}
    for body in yaml.safe_load_all(EXAMPLE.read_text()):
        types[body["kind"]].model_validate(body)


def test_defaults_that_the_api_server_fills_in_change_nothing() -> None:
    """The operator's input hash leaves defaults out, whoever wrote them."""
    body = next(b for b in yaml.safe_load_all(EXAMPLE.read_text()) if b["kind"] == "RecTraining")
    plain = RecTraining.model_validate(body)
    filled = RecTraining.model_validate({**body, "spec": plain.spec.model_dump(mode="json", by_alias=True)})
    assert plain.spec.model_dump(exclude_defaults=True) == filled.spec.model_dump(exclude_defaults=True)


def test_an_unknown_field_is_refused_by_name() -> None:
    body = next(b for b in yaml.safe_load_all(EXAMPLE.read_text()) if b["kind"] == "RecServing")
    body["spec"]["replica"] = 2
    with pytest.raises(ValidationError, match="replica"):
        RecServing.model_validate(body)
