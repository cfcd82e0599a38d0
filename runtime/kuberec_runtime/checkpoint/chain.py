"""When to write all rows and when only those touched: a pure decision on the chain so far.

A restore reads the whole chain, so a chain may not grow without bound: the next link is full after `full_every` links,
or once the deltas together exceed half of the full link (a full one is then little more to write, much less to read).
"""

from collections.abc import Sequence

from kuberec_runtime.checkpoint.manifest import Link, LinkKind

FULL_EVERY = 10
DELTA_SHARE = 0.5


def next_kind(chain: Sequence[Link], full_every: int = FULL_EVERY, broken: bool = False) -> LinkKind:
    """Decides the next link's kind.

    Args:
        chain: the links of the last committed manifest, oldest first; empty for a first cut.
        full_every: links of a chain at most.
        broken: the training was restored from an older manifest than the last one: what was dirty in between is lost,
            and the skipped manifest's files may be gone, so start a chain of its own.
    """
    if not chain or broken or len(chain) >= full_every:
        return LinkKind.FULL
    deltas = sum(link.words for link in chain[1:])
    return LinkKind.FULL if deltas > DELTA_SHARE * chain[0].words else LinkKind.DELTA


def extend(chain: Sequence[Link], link: Link) -> tuple[Link, ...]:
    """Returns the chain with one more link; a full link starts it anew. Counts are whole in every link: the last do.

    Raises:
        ValueError: a delta has nothing to build on.
    """
    if link.kind is LinkKind.FULL:
        return (link,)
    if not chain:
        raise ValueError(f"the delta of epoch {link.epoch} has no full link to build on")
    older = (e.model_copy(update={"files": tuple(f for f in e.files if not f.counted)}) for e in chain)
    return (*older, link)
