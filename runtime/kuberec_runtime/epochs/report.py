"""A comparison laid out for a terminal: one table for each question a person has about two epochs."""

from rich.table import Table

from kuberec_runtime.checkpoint import Manifest, PartitionOffset
from kuberec_runtime.epochs.changes import Changes

LEFT = {"topic", "table", "weight", "metric", "library", "chain"}


def change_tables(changes: Changes) -> list[Table]:
    """The tables of `kuberec checkpoints diff`, in the order in which they are asked for."""
    tables = [_heads(changes), _offsets(changes), _rows(changes), _weights(changes), _metrics(changes)]
    if changes.libraries:
        tables.append(_libraries(changes))
    return tables


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    return table


def _heads(changes: Changes) -> Table:
    before, after = changes.before, changes.after
    table = Table(box=None, header_style="bold")
    for name in ("", f"epoch {before.epoch}", f"epoch {after.epoch}", "change"):
        table.add_column(name)
    table.add_row("attempt", str(before.attempt), str(after.attempt), "")
    if before.note or after.note:
        table.add_row("note", before.note, after.note, "")
    table.add_row("created", _short(before.created_at), _short(after.created_at), "")
    samples = after.samples - before.samples
    table.add_row("samples", f"{before.samples:,}", f"{after.samples:,}", f"{samples:+,}")
    old, new = changes.steps
    table.add_row("dense steps", f"{old:,}", f"{new:,}", f"{new - old:+,}")
    table.add_row("chain", _chain(before), _chain(after), "")
    table.add_row("published", before.published or "-", after.published or "-", "")
    same = "same plan" if before.digest == after.digest else "another plan"
    table.add_row("plan digest", before.digest[:8], after.digest[:8], same)
    for line in changes.plan:
        table.add_row("", "", "", line)
    return table


def _offsets(changes: Changes) -> Table:
    table = _table("topic", "partition", "next", "now", "change", "in message", "samples", "now", "change")
    for p in changes.partitions:
        moved = p.after.next - p.before.next if p.before and p.after else None
        inside = f"{p.before.skip if p.before else 0} -> {p.after.skip if p.after else 0}"
        more = p.samples[1] - p.samples[0]
        table.add_row(
            p.topic,
            str(p.partition),
            _next(p.before),
            _next(p.after),
            "-" if moved is None else f"{moved:+,}",
            inside,
            f"{p.samples[0]:,}",
            f"{p.samples[1]:,}",
            f"{more:+,}",
        )
    return table


def _rows(changes: Changes) -> Table:
    table = _table("table", "rows", "now", "added", "changed", "removed", "mean move")
    for t in changes.tables:
        counts = (t.before, t.after, t.added, t.changed, t.removed)
        table.add_row(t.name, *(f"{n:,}" for n in counts), f"{t.mean_move:.4g}" if t.changed else "-")
    return table


def _weights(changes: Changes) -> Table:
    table = _table("weight", "floats", "norm", "now", "distance", "relative")
    for w in changes.weights:
        relative = f"{w.distance / w.before:.2%}" if w.before else "-"
        table.add_row(w.name, f"{w.size:,}", f"{w.before:.4f}", f"{w.after:.4f}", f"{w.distance:.4g}", relative)
    if not changes.weights:
        table.add_row("another network", *5 * ("-",))
    return table


def _metrics(changes: Changes) -> Table:
    table = _table("metric", "was", "now", "change")
    for name, (old, new) in changes.metrics.items():
        change = "-" if old is None or new is None else f"{new - old:+.6g}"
        table.add_row(name, _number(old), _number(new), change)
    return table


def _libraries(changes: Changes) -> Table:
    table = _table("library", "was", "now")
    for name, (old, new) in changes.libraries.items():
        table.add_row(name, old or "-", new or "-")
    return table


def _next(offset: PartitionOffset | None) -> str:
    return "-" if offset is None else f"{offset.next:,}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _short(created_at: str) -> str:
    return created_at[:19].replace("T", " ")


def _chain(manifest: Manifest) -> str:
    return " + ".join(f"{link.kind.value} {link.epoch}" for link in manifest.chain)
