"""Pydantic's JSON Schema to a structural OpenAPI schema, as CustomResourceDefinitions demand it.

Structural means: no references, a type on every node, no `additionalProperties` beside `properties`, no null. Defaults
of the spec stay in the schema, so that `kubectl get -o yaml` shows what is really used; a status has none.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from kuberec_api.rules import LIST_KEYS, rules_of

Schema = dict[str, Any]

_KEPT = (
    *("description", "type", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems"),
    *("minProperties", "maxProperties", "minimum", "maximum"),
)


def structural(model: type[BaseModel], *, defaults: bool) -> Schema:
    """Returns the structural schema of a model.

    Args:
        model: a Pydantic type.
        defaults: keep default values (the spec's), or leave them out (a status: what nobody wrote is unknown).

    Raises:
        TypeError: for a construct that a CRD cannot express.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    definitions: Mapping[str, Schema] = {**raw.get("$defs", {}), model.__name__: raw}
    return _Translation(definitions, defaults).object(model.__name__)


class _Translation:
    def __init__(self, definitions: Mapping[str, Schema], defaults: bool) -> None:
        self._definitions, self._defaults = definitions, defaults

    def object(self, name: str) -> Schema:
        """Translates a named type, with its rules and list keys."""
        schema = self.node(self._definitions[name])
        for field, key in LIST_KEYS.get(name, {}).items():
            schema["properties"][field] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
        if rules := rules_of(name):
            schema["x-kubernetes-validations"] = [{"rule": r.rule, "message": r.message} for r in rules]
        return schema

    def node(self, raw: Schema) -> Schema:
        """Translates one schema."""
        if (reference := raw.get("$ref")) is not None:
            target = self.object(reference.rpartition("/")[2])
            return self._default(raw, {**target, **_only(raw, ("description",))})
        if "anyOf" in raw:
            return self._union(raw)
        schema = _only(raw, _KEPT)
        if "const" in raw:
            schema["enum"] = [raw["const"]]
        if "description" in schema:
            schema["description"] = " ".join(schema["description"].split())
        if "exclusiveMinimum" in raw:
            schema |= {"minimum": raw["exclusiveMinimum"], "exclusiveMinimum": True}
        if "exclusiveMaximum" in raw:
            schema |= {"maximum": raw["exclusiveMaximum"], "exclusiveMaximum": True}
        if schema.get("type") == "integer":
            schema["format"] = "int64"
        if "items" in raw:
            schema["items"] = self.node(raw["items"])
        if "properties" in raw:
            schema["properties"] = {name: self.node(field) for name, field in raw["properties"].items()}
            if raw.get("required"):
                schema["required"] = list(raw["required"])
        elif (values := _values(raw)) is not None:
            schema["additionalProperties"] = self.node(values)
        if "type" not in schema:
            raise TypeError(f"no type in {raw}")
        return self._default(raw, schema)

    def _union(self, raw: Schema) -> Schema:
        options = [option for option in raw["anyOf"] if option.get("type") != "null"]
        if len(options) == 1:
            return self._default(raw, self.node(options[0]) | _only(raw, ("description",)))
        if {option.get("type") for option in options} <= {"string", "number", "integer"}:
            # A CRD has no union of text and float; the operator's own validation reads this one.
            return {"x-kubernetes-preserve-unknown-fields": True, "description": "Text or a number."}
        raise TypeError(f"a CRD cannot express this union: {raw['anyOf']}")

    def _default(self, raw: Schema, schema: Schema) -> Schema:
        value = raw.get("default")
        if not self._defaults or value is None or value is False or value in ([], {}):
            return schema  # what is off or empty is not worth a line in every object
        return schema | {"default": _set(value)}


def _values(raw: Schema) -> Schema | None:
    """Returns the schema of a map's values; a CRD cannot constrain its keys, so the operator's validation does."""
    if raw.get("patternProperties"):
        (values,) = raw["patternProperties"].values()
        return dict(values)
    values = raw.get("additionalProperties")
    return dict(values) if isinstance(values, dict) else None


def _set(value: Any) -> Any:
    """Leaves out what is null: in Kubernetes that is the same as not being there."""
    if isinstance(value, dict):
        return {name: _set(inner) for name, inner in value.items() if inner is not None and inner != []}
    return value


def _only(raw: Schema, names: tuple[str, ...]) -> Schema:
    # Lists are copied, or YAML would name one that stands in two places.
    return {n: list(raw[n]) if isinstance(raw[n], list) else raw[n] for n in names if n in raw}
