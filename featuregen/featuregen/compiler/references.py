"""Features that read features: in which order they are computed, and that there is such an order."""

from collections.abc import Iterator

from featuregen.errors import FeatureError, did_you_mean
from featuregen.spec import Feature, FeatureSpec


def references(feature: Feature) -> Iterator[str]:
    """Yields the features that a feature reads, as often as it does."""
    single = (feature.map, feature.key, feature.pkey, feature.skey, feature.query, feature.title, feature.document)
    fields = [ref for entry in feature.fields for ref in (entry.in_, *entry.vars)]
    for ref in (*feature.in_, *single, feature.by, feature.value, *fields):
        if ref is not None and ref.startswith("feature."):
            yield ref.removeprefix("feature.")


def reading_order(spec: FeatureSpec) -> list[Feature]:
    """Returns the features so that each comes after those that it reads.

    Raises:
        FeatureError: for an unknown feature, a cycle (it is printed), or a stub that nothing reads.
    """
    known = {feature.name: feature for feature in spec.list}
    order: dict[str, Feature] = {}
    for feature in spec.list:
        if feature.name not in order:
            _visit(feature, known, order)
    read = {name for feature in spec.list for name in references(feature)}
    for feature in spec.list:
        if feature.stub and feature.name not in read:
            raise FeatureError(
                feature.name,
                "is a stub that no feature reads",
                f"read it as feature.{feature.name}, or remove stub to make it an output",
            )
    return list(order.values())


def _visit(first: Feature, known: dict[str, Feature], order: dict[str, Feature]) -> None:
    """Adds a feature behind all that it reads; with a stack of its own, for a chain may be long."""
    path = [(first, references(first))]
    while path:
        feature, unread = path[-1]
        name = next(unread, None)
        if name is None:
            order[feature.name] = feature
            path.pop()
        elif name not in known:
            raise FeatureError(
                feature.name, f"'feature.{name}': there is no feature '{name}'", did_you_mean(name, known, "features")
            )
        elif name in (names := [one.name for one, _ in path]):
            cycle = " -> ".join([*names[names.index(name) :], name])
            raise FeatureError(name, f"reads itself: {cycle}", "let one of them read a field of a source")
        elif name not in order:
            path.append((known[name], references(known[name])))
