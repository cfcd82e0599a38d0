"""What the next feature of a random spec may read, and options that fit it: encoders, defaults, normalizers."""

from collections.abc import Sequence
from random import Random
from typing import Any

from tests.unit.featuregen.random_rows import SOURCES, WORDS


class Spec:
    """A spec as it grows: its features, and what the next one may read."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.features: list[dict[str, Any]] = []
        self.fields: list[tuple[str, str, bool]] = [("user.uid", "string", True), ("item.iid", "string", False)]
        for source in ("user", "item", "context"):
            per_item = SOURCES[source].get("perItem", [])
            for name, kind in SOURCES[source]["fields"].items():
                self.fields.append((f"{source}.{name}", kind, source != "item" and name not in per_item))
        self.hashed: list[str] = []

    def some(self, values: Sequence[Any]) -> Any:
        return self.rng.choice(values)

    def maybe(self, values: Sequence[Any]) -> Any:
        """One of the values, or None, which leaves an option out."""
        return self.rng.choice(values) if self.chance() else None

    def chance(self, odds: float = 0.5) -> bool:
        return self.rng.random() < odds

    def subset(self, values: Sequence[Any], least: int, most: int) -> list[Any]:
        return self.rng.sample(values, min(len(values), self.rng.randint(least, most)))

    def _refs(self, *kinds: str) -> list[str]:
        """Fields of one of the types; sometimes, if there are any, features only."""
        found = [ref for ref, kind, _ in self.fields if kind in kinds]
        features = [ref for ref in found if ref.startswith("feature.")]
        return features if features and self.chance(0.3) else found

    def field(self, *kinds: str) -> str:
        return str(self.some(self._refs(*kinds)))

    def fields_of(self, least: int, most: int, *kinds: str) -> list[str]:
        found = self._refs(*kinds)
        return self.subset(
            found if len(found) >= least else [r for r, kind, _ in self.fields if kind in kinds], least, most
        )

    def type_of(self, ref: str) -> str:
        return next(kind for name, kind, _ in self.fields if name == ref)

    def is_user(self, refs: Sequence[str]) -> bool:
        users = {ref: user for ref, _, user in self.fields}
        return all(users[ref] for ref in refs)

    def add(self, op: str, result: str | None, refs: Sequence[str], /, **options: Any) -> None:
        """Adds a feature; `result` is the type that others read it as, None if they cannot."""
        name = f"f{len(self.features)}"
        feature = {"name": name, "op": op} | {k.rstrip("_"): v for k, v in options.items() if v is not None}
        if result is not None:
            self.fields.append((f"feature.{name}", result, self.is_user(refs)))
        if "hashBuckets" in feature.get("encode", {}):
            self.hashed.append(name)
        self.features.append(feature)

    def texts(self, only_hash: bool = False, prefix: bool = True) -> dict[str, Any]:
        """Options of what makes texts."""
        if self.hashed and self.chance(0.2):
            return {"like": self.some(self.hashed), "default": self.maybe(["a", 3])}
        kinds = (
            ["hash"] if only_hash else ["hash", "hash", "identity", "vocab", "unknown", "dict", "dict_unknown", "file"]
        )
        kind = self.some(kinds)
        default = self.maybe(["1", 2] if kind == "identity" else ["a", "1", 3, ""])
        if kind == "hash":
            encode = {"hashBuckets": self.some([1, 7, 2**47, 2**47])}
            return {"encode": encode, "default": default, "prefix": self.maybe(["p_"]) if prefix else None}
        words = self.subset([*WORDS, "z"], 1, 4)
        ids = {word: index % 3 for index, word in enumerate(words)}
        encode = {
            "identity": {"identityBuckets": self.some([8, 2**47])},
            "vocab": {"vocab": words},
            "unknown": {"vocab": words, "unknown": 5},
            "dict": {"vocabDict": ids},
            "dict_unknown": {"vocabDict": ids, "unknown": 2},
            "file": {"vocabFile": "tags", "unknown": 0, "vocabSize": 10},
        }[kind]
        return {"encode": encode, "default": default}

    def normalizer(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.maybe(
            [
                {"kind": "log10"},
                {"kind": "log10", "threshold": 0.6, "default": -5},
                {"kind": "zscore", "mean": 0.1, "stddev": 3},
                {"kind": "minmax", "min": 0.1, "max": 0.6},
                {"kind": "expression", "expr": "x < 1 ? x ^ 3 : log(x) - 1"},
                {"kind": "expression", "expr": "x / 0 * 0 + sqrt(x)"},
            ]
        )
        return found

    def boundaries(self) -> list[float]:
        return sorted(self.subset([-1.0, 0.0, 0.5, 1.0, 2.5], 0, 5))

    def numbers(self, dim: int = 1) -> dict[str, Any]:
        """Options of what makes numbers."""
        made: dict[str, Any] = {"normalizer": self.normalizer()}
        if dim > 1 and self.chance():
            made["defaults"] = [0.5 * index - 1 for index in range(dim)]
        else:
            made["default"] = self.maybe([0, 0.5, -3.25])
        made["boundaries"] = self.boundaries() if self.chance(0.3) else None
        return made

    def number_type(self, dim: int) -> str:
        return "float" if dim == 1 else "list<float>"
