"""Typed errors of the Redis tier; each names the server (without its password) and how to mend it."""
# ruff: noqa: N818 - the names say what happened; "Error" would add nothing


class TierError(RuntimeError):
    """Base of all errors of the tier and the feature store."""


class TierUnreachable(TierError):
    """Nobody answers at the URL, or not in time. Trying again later may help."""


class TierRefused(TierError):
    """The server answers and says no: wrong password, missing right, out of memory, read-only replica."""


class StalePublication(TierError):
    """A newer attempt or version owns the tier: this writer must stop."""


class TierCorrupt(TierError):
    """A value in the tier is missing or is not what its key promises."""
