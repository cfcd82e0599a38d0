"""The one error type of the library: it names the feature, what is wrong with it and how to mend it."""

from collections.abc import Iterable
from difflib import get_close_matches


class FeatureError(ValueError):
    """A feature spec, or an input to it, that cannot be honoured.

    Attributes:
        feature: name of the feature, or None where the whole spec is meant.
        problem: one line, what is wrong.
        hint: how to mend it, may be empty.
    """

    def __init__(self, feature: str | None, problem: str, hint: str = "") -> None:
        self.feature, self.problem, self.hint = feature, problem, hint
        where = f"feature '{feature}': " if feature else "features: "
        super().__init__(where + problem + (f"\n  {hint}" if hint else ""))


def did_you_mean(name: str, known: Iterable[str], what: str = "declared") -> str:
    """Returns a hint that lists what is declared and names the closest match, e.g. for a misspelt field."""
    declared = sorted(known)
    close = get_close_matches(name, declared, n=1)
    return f"{what}: " + (", ".join(declared) or "nothing") + (f"; did you mean '{close[0]}'?" if close else "")
