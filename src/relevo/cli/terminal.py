"""What people see in the terminal: one console, tables that read alike, errors with what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relevo.errors import RelevoError

console = Console()
errors = Console(stderr=True)

MARKS = {
    "production": "green",
    "live": "green",
    "healthy": "green",
    "staging": "yellow",
    "waiting for approval": "yellow",
    "canary": "yellow",
    "training": "cyan",
    "rejected": "red",
    "failed": "red",
    "rolled back": "red",
    "critical": "red",
    "warning": "yellow",
}


def show_error(error: RelevoError) -> None:
    """One message; what to do on a line of its own."""
    errors.print(Text("Error: ", style="bold red") + Text(error.message), soft_wrap=True)
    if error.hint:
        errors.print(Text(error.hint, style="dim"), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table; numbers to the right; ``empty`` says what it means that there are no rows."""
    found = [["" if cell is None else cell for cell in row] for row in rows]
    if not found:
        console.print(Text(empty, style="dim"))
        return
    sheet = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        is_number = all(isinstance(row[index], int | float) for row in found)
        sheet.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in found:
        sheet.add_row(*(cell_text(cell) for cell in row))
    console.print(sheet)


def cell_text(cell: object) -> Text:
    """A cell, coloured when it is one of the words that say how something stands."""
    if isinstance(cell, Text):
        return cell
    words = f"{cell:.4f}" if isinstance(cell, float) else str(cell)
    return Text(words, style=MARKS.get(words.replace("_", " "), ""))


def moment(at: object) -> str:
    """A time to the minute: ``2013-08-15 00:00``."""
    return "" if at is None else str(at)[:16].replace("T", " ")
