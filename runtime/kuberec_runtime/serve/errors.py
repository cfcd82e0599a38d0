"""What a request or a version can be refused for; each knows its HTTP status."""
# ruff: noqa: N818 - the names say what happened; "Error" would add nothing


class Refusal(Exception):
    """Base: `status` is the HTTP status, `retry_after_s` is sent as Retry-After when set."""

    status = 500
    retry_after_s: int | None = None

    def body(self) -> dict[str, object]:
        """The answer's body."""
        return {"error": str(self)}


class BadInput(Refusal):
    """A request that does not fit the model's sources: which field, what was expected, what came."""

    status = 400

    def __init__(self, field: str, expected: str, got: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {got}")
        self.field, self.expected, self.got = field, expected, got

    def body(self) -> dict[str, object]:
        """The answer's body."""
        return {"error": str(self), "field": self.field, "expected": self.expected, "got": self.got}


class TooManyCandidates(Refusal):
    """More candidates than `maxCandidates`."""

    status = 413

    def __init__(self, got: int, limit: int) -> None:
        super().__init__(f"{got} candidates, this model ranks at most {limit} in one request (spec.maxCandidates)")


class UnknownModel(Refusal):
    """A path that names another model, or nothing at all."""

    status = 404


class UnsupportedType(Refusal):
    """A Content-Type that is not understood."""

    status = 415


class Overloaded(Refusal):
    """Shed before work was done: too many requests wait, or this one waited too long."""

    status = 503
    retry_after_s = 1


class NotReady(Refusal):
    """No version is warm yet; says why."""

    status = 503
    retry_after_s = 1


class VersionRefused(Exception):
    """A version that this replica must not serve; says why. The one before goes on being served."""
