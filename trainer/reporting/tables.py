"""Plain-text tables and numbers for the console."""

import math
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


def exit_lines(cut_points: Sequence[str], accuracies: Sequence[float], tested_on: str) -> list[str]:
    """The accuracies of every early exit and, last, of the whole model; ``tested_on`` says on which images."""
    names = [*(f"early exit after {cut}" for cut in cut_points), "the whole model"]
    rows = [[name, f"{100 * accuracy:.2f} %"] for name, accuracy in zip(names, accuracies, strict=True)]
    return [f"{tested_on} accuracy of", *("  " + line for line in table(rows, left={0}))]


def short(loss: float | None) -> str:
    """A loss in 5 characters; ``-`` where no step counted."""
    if loss is None:
        return "-"
    if not math.isfinite(loss) or abs(loss) >= 1e5:
        return f"{loss:.0e}".replace("e+", "e")
    return f"{loss:.{max(0, 4 - len(str(int(abs(loss)))))}f}"
