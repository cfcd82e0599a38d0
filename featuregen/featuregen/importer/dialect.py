"""The two dialects of fg.json: the same keys with opposite defaults. No file says which one it is, so the user must.

`pyfg` is the present feature generator (pyFG, TorchEasyRec, EasyRec with FG). `rtp` is the older one (RTP, fg_lite).
Their defaults are taken from EasyRec's fg_docs, TorchEasyRec's docs and tests, and fg_lite's configuration classes.
"""

from dataclasses import dataclass
from enum import StrEnum


class DialectName(StrEnum):
    """Whose defaults a file was written for."""

    PYFG = "pyfg"
    RTP = "rtp"


@dataclass(frozen=True)
class Dialect:
    """What a file leaves unsaid.

    Attributes:
        name: the dialect.
        need_prefix: a text is hashed as `<feature>_<text>`.
        match_prefix: the same for match_feature; pyFG does it there alone.
        need_discrete: lookup, match and overlap make texts.
        need_key: a lookup's text is `<key>_<value>`.
        show_keys: a match's text is `<category>_<item>_<value>`.
        log10: threshold and default of the normalizer log10.
        joiner: stands between a grouped sequence's name and the names of its fields.
        operators: the feature types that it has; None: all.
    """

    name: DialectName
    need_prefix: bool
    match_prefix: bool
    need_discrete: bool
    need_key: bool
    show_keys: bool
    log10: tuple[float, float]
    joiner: str
    operators: tuple[str, ...] | None = None


DIALECTS = {
    DialectName.PYFG: Dialect(DialectName.PYFG, False, True, False, False, False, (1e-10, -10.0), "__"),
    DialectName.RTP: Dialect(
        DialectName.RTP,
        need_prefix=True,
        match_prefix=True,
        need_discrete=True,
        need_key=True,
        show_keys=True,
        log10=(1.0, 0.0),
        joiner="_",
        operators=(
            "id_feature",
            "raw_feature",
            "combo_feature",
            "lookup_feature",
            "match_feature",
            "overlap_feature",
        ),
    ),
}
