"""Plain-text tables and numbers for the console."""

from collections.abc import Collection, Sequence


def table(rows: Sequence[Sequence[str]], left: Collection[int] = ()) -> list[str]:
    """Rows of cells as lines; the columns whose numbers are in ``left`` are left-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def aligned(column: int, cell: str) -> str:
        return cell.ljust(widths[column]) if column in left else cell.rjust(widths[column])

    return ["  ".join(aligned(column, cell) for column, cell in enumerate(row)).rstrip() for row in rows]


def mebibytes(nbytes: float) -> str:
    """A number of bytes in MiB."""
    return f"{nbytes / 2**20:,.1f} MiB"
