"""What people see in the terminal: one console, tables that read alike, errors with what to do next."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relevo.errors import RelevoError

#: A pipe has no width: lines that a script reads are never broken.
_PIPE_WIDTH = 10_000
#: What a sentence needs to be read in a column, in how many lines at most, and the blanks between columns.
_SENTENCE_WIDTH, _SENTENCE_LINES, _GAP = 16, 6, 2

console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
errors = Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)

MARKS = {
    "production": "green",
    "live": "green",
    "healthy": "green",
    "staging": "yellow",
    "waiting for approval": "yellow",
    "shadow": "yellow",
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
    if error.hint and error.hint not in error.message:
        errors.print(Text(error.hint, style="dim"), soft_wrap=True)


def say(text: str | Text, style: str = "") -> None:
    """A line as it is: no markup is read in it, and it is not broken, so that it can be copied."""
    console.print(text if isinstance(text, Text) else Text(text, style=style), soft_wrap=True)


def explain(text: str, style: str = "dim") -> None:
    """A sentence or two, broken between words where the terminal is narrow."""
    console.print(Text(text, style=style))


def show_json(value: object) -> None:
    """JSON for scripts."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a table; numbers to the right; ``empty`` says what it means that there are no rows.

    Where the terminal is too narrow for one, each row becomes a block of lines.
    """
    found = [["" if cell is None else cell for cell in row] for row in rows]
    if not found:
        say(empty, "dim")
        return
    cells = [[cell_text(cell) for cell in row] for row in found]
    needed = [_needed([Text(name), *column]) for name, column in zip(columns, zip(*cells, strict=True), strict=True)]
    if sum(needed) + _GAP * (len(columns) - 1) > console.width:
        _blocks(columns, cells)
        return
    sheet = Table(box=None, header_style="bold", pad_edge=False)
    for index, name in enumerate(columns):
        is_number = all(isinstance(row[index], int | float) for row in found)
        sheet.add_column(name, justify="right" if is_number else "left", min_width=needed[index], no_wrap=index == 0)
    for row in cells:
        sheet.add_row(*row)
    _print(sheet)


def _print(sheet: Table) -> None:
    if console.is_terminal:
        console.print(sheet)
        return
    with console.capture() as filled:  # every cell as wide as its column, also where a line ends
        console.print(sheet)
    for line in filled.get().splitlines():
        say(line.rstrip())


def _needed(column: Sequence[Text]) -> int:
    """The least width at which a column reads well: no word is broken, no sentence stands in a long thin column."""
    longest = max(cell.cell_len for cell in column)
    return max(*map(_widest_word, column), min(longest, max(_SENTENCE_WIDTH, longest // _SENTENCE_LINES)))


def _widest_word(cell: Text) -> int:
    return max((cell_len(word) for word in cell.plain.split()), default=0)


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    """A line a cell; a sentence is broken between words, an id never, so that it can be copied."""
    width = max(len(name) for name in columns) + _GAP
    for index, row in enumerate(rows):
        if index:
            console.print()
        for name, cell in zip(columns, row, strict=True):
            if cell.plain:
                lines = cell.wrap(console, max(console.width - width, _widest_word(cell)))
                for number, line in enumerate(lines):
                    say(Text.assemble((f"{'' if number else name:{width}}", "dim"), line))


def cell_text(cell: object) -> Text:
    """A cell, coloured when it is one of the words that say how something stands."""
    if isinstance(cell, Text):
        return cell
    words = f"{cell:.4f}" if isinstance(cell, float) else str(cell)
    return Text(words, style=MARKS.get(words.replace("_", " "), ""))


def moment(at: object) -> str:
    """A time to the minute: ``2013-08-15 00:00``."""
    return "" if at is None else str(at)[:16].replace("T", " ")


def size(n_bytes: float) -> str:
    """A number of bytes for people: ``24.6 kB``."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"
