"""What tables hold and what they hold it in, from a shard's figures to `status.memory`. No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kuberec_api.training import MemoryStatus, ShardMemory, WidthMemory
from kuberec_runtime.table.table import Table

MIB = 2**20


@dataclass(frozen=True)
class Holding:
    """Rows, and bytes: of their values and keys alone, of all that is kept for them, and of the index."""

    rows: int = 0
    content: int = 0
    row_bytes: int = 0
    index_bytes: int = 0

    @classmethod
    def of(cls, table: Table) -> "Holding":
        """Returns the figures of a table as they are now."""
        index = table.index_bytes
        return cls(len(table), table.content_bytes, table.memory_bytes - index, index)

    @classmethod
    def sum(cls, parts: Iterable["Holding"]) -> "Holding":
        """Adds figures up."""
        rows, content, row_bytes, index_bytes = 0, 0, 0, 0
        for part in parts:
            rows, content = rows + part.rows, content + part.content
            row_bytes, index_bytes = row_bytes + part.row_bytes, index_bytes + part.index_bytes
        return cls(rows, content, row_bytes, index_bytes)

    @property
    def held(self) -> int:
        """Bytes of everything."""
        return self.row_bytes + self.index_bytes

    @property
    def bytes_per_row(self) -> float | None:
        """None without rows."""
        return round(self.held / self.rows, 1) if self.rows else None

    @property
    def ratio(self) -> float | None:
        """Bytes held for each byte of rows and keys, None without rows."""
        return round(self.held / self.content, 2) if self.content else None

    def figures(self) -> dict[str, int | float | None]:
        """The fields of `HeldMemory`."""
        return {
            "rows": self.rows,
            "row_bytes": self.row_bytes,
            "index_bytes": self.index_bytes,
            "bytes_per_row": self.bytes_per_row,
            "ratio": self.ratio,
        }


def memory_status(shards: Sequence[Mapping[int, Holding]]) -> MemoryStatus:
    """Returns the status of shards, given in their order, each by row width."""
    widths = sorted({width for shard in shards for width in shard})
    by_width = {w: Holding.sum(shard[w] for shard in shards if w in shard) for w in widths}
    by_shard = [Holding.sum(shard.values()) for shard in shards]
    total = Holding.sum(by_shard)
    return MemoryStatus(
        **total.figures(),
        held=f"{-(-total.held // MIB)}Mi",
        widths=[WidthMemory(width=width, **part.figures()) for width, part in by_width.items()],
        shards=[ShardMemory(shard=index, **part.figures()) for index, part in enumerate(by_shard)],
    )
