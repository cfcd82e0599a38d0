"""The result of an import, and its text: a RecModel that a person can read, with what was assumed at its head."""

from dataclasses import dataclass, field
from typing import Any

import yaml

from featuregen.importer.model import Model
from featuregen.importer.tails import Native
from featuregen.spec import FeatureSpec

WIDTH = 120
_IN_BLOCKS = ("spec", "features", "sources", "files", "list", "embeddings", "network", "groups", "tables", "tasks")


@dataclass
class Imported:
    """A resolved model.

    Attributes:
        spec: RecModel.spec.features.
        features: its list as it is written, each with its keys in a readable order.
        model: what surrounds the features.
        paths: what fg.json calls the files of the spec.
        assumed: what no file said and what the spec therefore depends on, one line each.
        notes: what is otherwise than upstream, or was left out; one line each.
    """

    spec: FeatureSpec
    features: list[Native]
    model: Model
    paths: dict[str, str] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def document(self, name: str) -> dict[str, Any]:
        """The RecModel as data; without a network it lacks `network` and `tasks`."""
        dumped = self.spec.model_dump(mode="json", by_alias=True, exclude_unset=True) | {"list": self.features}
        for file, path in self.paths.items():  # pods read files from a ConfigMap, whose keys may have a dot
            dumped["files"][file]["configMap"] = {"name": f"{name}-files", "key": last_name(path)}
        dumped["sources"] = {source: one for source, one in dumped["sources"].items() if one}
        spec: dict[str, Any] = {"features": dumped}
        if self.model.embeddings:
            spec["embeddings"] = self.model.embeddings
        if self.model.network is not None:
            spec |= {"network": self.model.network, "tasks": self.model.tasks}
        return {"apiVersion": "kuberec.dev/v1alpha1", "kind": "RecModel", "metadata": {"name": name}, "spec": spec}

    def drop_network(self, why: str) -> None:
        """Leaves the features alone, for a reason that the text then says."""
        self.model.network, self.model.why = None, why

    def text(self, name: str) -> str:
        """The RecModel as YAML: the same text for the same input, a feature a line."""
        head = ["# Written by kuberec import. Assumed:", *(f"# - {line}" for line in self.assumed)]
        if self.model.network is None:
            head += [f"# Features only: {self.model.why}.", "# Add network and tasks, then run kuberec validate on it."]
        return "\n".join([*head, *_block(_plain(self.document(name)), 0)]) + "\n"


def last_name(path: str) -> str:
    """The last name of a path, of any system."""
    return path.replace("\\", "/").rpartition("/")[2]


def _plain(value: Any) -> Any:
    """Whole floats as whole numbers, which is how a person writes them."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9)
    return text.removesuffix("...\n").strip()


def _block(value: Any, indent: int) -> list[str]:
    """Lines of a mapping or list: what fits into a line is written in one."""
    pad = " " * indent
    if isinstance(value, list):
        return [line for one in value for line in _item(one, indent)]
    lines = []
    for key, one in value.items():
        line = f"{pad}{_flow({key: one})[1:-1]}"
        if not one or not isinstance(one, dict | list) or (len(line) <= WIDTH and key not in _IN_BLOCKS):
            lines.append(line)
        elif isinstance(one, list) and not any(isinstance(part, dict | list) for part in one):
            lines += _wrapped(f"{pad}{_flow(key)}: ", [_flow([part])[1:-1] for part in one], "[]", indent + 2)
        else:
            lines += [f"{pad}{_flow(key)}:", *_block(one, indent + 2)]
    return lines


def _item(value: Any, indent: int) -> list[str]:
    head = " " * indent + "- "
    if not isinstance(value, dict):
        return [head + _flow(value)]
    if not any(isinstance(one, list) and isinstance(one[0], dict) for one in value.values() if one):
        return _wrapped(head, [_flow({key: one})[1:-1] for key, one in value.items()], "{}", indent + 3)
    first, *rest = _block(value, indent + 2)
    return [head + first.strip(), *rest]


def _wrapped(head: str, parts: list[str], brackets: str, indent: int) -> list[str]:
    """A mapping or list in brackets, over as many lines as it needs."""
    lines, line = [], head + brackets[0]
    for index, part in enumerate(parts):
        part += brackets[1] if index == len(parts) - 1 else ","
        if index and len(line) + 1 + len(part) > WIDTH:
            lines.append(line)
            line = " " * indent + part
        else:
            line += f" {part}" if index else part
    return [*lines, line]
