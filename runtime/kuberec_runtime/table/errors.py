"""What a table refuses, each saying what to change."""


class TableError(ValueError):
    """A key, a row or a size that the table cannot hold; nothing was changed by the refused call."""


class TableFull(TableError, MemoryError):  # noqa: N818 - named for what happened
    """The address space reserved for rows or keys is used up; the message names the limit."""
