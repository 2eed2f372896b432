"""Looks at a plain file and decides what a first contract over it says: task, key, inputs, types."""

from __future__ import annotations

import csv
import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relevo.contract.model import Task
from relevo.contract.reading import meant
from relevo.errors import Invalid, TooLarge

if TYPE_CHECKING:
    import polars as pl

MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None"]
FEWEST_ROWS = 50
MOST_WHOLE_CLASSES = 10
MOST_TEXT_CLASSES = 100
MOST_TEXTS = 1_000  # an input with more different texts says more about single rows than about what they share
MAX_FILE_BYTES = 200 * 1024 * 1024
_ID = re.compile(r"(?:^|_)(?:id|key|uuid|guid|index|nr|no)$", re.IGNORECASE)
#: How files write days and times: 2024-05-31, 2024/05/31 10:00, 31.05.2024, 5/31/2024.
_DATE = re.compile(r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2}))(?:[T ].*)?")
_DATES_LOOKED_AT = 200
_CAPITAL_ID = re.compile(r"[a-z]I[Dd]$")


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds. Columns have the names that the project gives them; ``columns`` maps the file's to those.

    ``key_is_row``: the file has no key, and the number of the row stands in. ``label_is_whole``: the label is whole
    numbers that the file writes as decimals, because some are missing.
    """

    task: Task
    n_rows: int
    separator: str
    columns: dict[str, str]
    types: dict[str, str]  # dataframely's names
    key: str
    key_is_row: bool
    label: str
    label_is_whole: bool
    n_classes: int
    inputs: tuple[str, ...]
    slices: tuple[str, ...]
    notes: tuple[str, ...]


def inspect_table(path: Path, label: str) -> Table:
    """What the CSV file at ``path`` holds, when ``label`` is to be predicted.

    Raises:
        Invalid: The file cannot be read as a table, has no such column, or too little to learn from.
        TooLarge: It is larger than a package may be.
    """
    frame, separator = _read(path)
    if label not in frame.columns:
        expected = f"expected one of {', '.join(frame.columns)}"
        raise Invalid(f"{path}: label: {expected}, got {label!r}{meant(label, frame.columns)}", field="label")
    task, label_is_whole = _task(path, frame[label])
    notes = [f"`{label}` has {_described(frame[label])}, so the task is {task.value}."]
    key = _key(frame, label)
    kept, left_out = _inputs(frame, [name for name in frame.columns if name not in (label, key)])
    notes += left_out
    if not kept:
        raise Invalid(f"{path}: no column is left to predict {label!r} from. " + " ".join(left_out).replace("`", "'"))
    names = _safe_names([*([key] if key else []), *kept, label])
    notes += [f"`{there}` is called `{here}`." for there, here in names.items() if there != here]
    row = next(name for name in ("row", "row_number", "relevo_row") if name not in names.values())
    notes.append(f"`{key}` tells rows apart." if key else f"No column tells rows apart, so `{row}` numbers them.")
    return Table(
        task=task,
        n_rows=frame.height,
        separator=separator,
        columns=names,
        types=_types(frame, names, None if key else row, label if label_is_whole else None),
        key=names[key] if key else row,
        key_is_row=key is None,
        label=names[label],
        label_is_whole=label_is_whole,
        n_classes=frame[label].n_unique() - (1 if frame[label].null_count() else 0),
        inputs=tuple(names[name] for name in kept),
        slices=tuple(names[name] for name in kept if _is_slice(frame[name]))[:2],
        notes=tuple(notes),
    )


def _read(path: Path) -> tuple[pl.DataFrame, str]:
    import polars as pl

    if not path.is_file():
        raise Invalid(f"There is no file {path}.", field="from")
    if path.stat().st_size > MAX_FILE_BYTES:
        hint = "Write a project with relevo init NAME, and a loader that reads the file from where it is."
        raise TooLarge(f"{path} has more than the {MAX_FILE_BYTES} bytes that a package may hold.", hint=hint)
    separator = _separator(path)
    try:
        frame = pl.read_csv(path, separator=separator, null_values=MISSING, infer_schema_length=None)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read as CSV: {str(error).splitlines()[0]}", field="from") from error
    if frame.height < FEWEST_ROWS:
        raise Invalid(f"{path} has {frame.height} rows; expected at least {FEWEST_ROWS}.", field="from")
    return frame, separator


def _separator(path: Path) -> str:
    """The separator that the first lines agree on; a comma when they do not."""
    with path.open("rb") as file:
        start = file.read(64 * 1024)
    try:
        return csv.Sniffer().sniff(start.decode(errors="replace").splitlines()[0], delimiters=",;\t|").delimiter
    except (csv.Error, IndexError):
        return ","


def _task(path: Path, label: pl.Series) -> tuple[Task, bool]:
    """The task that a label's values suggest, and whether they are whole numbers written as decimals.

    Raises:
        Invalid: There are too few labels, they are all equal, or they are texts that are all different.
    """
    known = label.drop_nulls()
    if len(known) < FEWEST_ROWS:
        raise Invalid(f"{path}: label {label.name!r} is there in {len(known)} rows; expected {FEWEST_ROWS} or more.")
    n_different = known.n_unique()
    if n_different < 2:
        raise Invalid(f"{path}: label {label.name!r} is {known[0]!r} in every row: there is nothing to learn.")
    if not label.dtype.is_numeric():
        if n_different > min(MOST_TEXT_CLASSES, len(known) // 5):
            what = f"{n_different} different values in {len(known)} rows"
            raise Invalid(f"{path}: label {label.name!r} has {what}; expected classes or numbers.")
        return Task.CLASSIFICATION, False
    is_whole = label.dtype.is_integer() or bool((known == known.round()).all())
    if is_whole and n_different <= MOST_WHOLE_CLASSES:
        return Task.CLASSIFICATION, not label.dtype.is_integer()
    return Task.REGRESSION, False


def _key(frame: pl.DataFrame, label: str) -> str | None:
    """The first column that tells every row apart and looks made for it."""
    for name in frame.columns:
        column = frame[name]
        is_plain = column.dtype.is_integer() or str(column.dtype) == "String"
        looks_like_key = _ID.search(name) or _CAPITAL_ID.search(name)
        if name != label and is_plain and looks_like_key and not column.null_count() and column.is_unique().all():
            return name
    return None


def _inputs(frame: pl.DataFrame, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The columns to predict from; and why others are left out, in words."""
    kept, notes = [], []
    for name in names:
        column = frame[name]
        n_different = column.drop_nulls().n_unique()
        is_text = str(column.dtype) == "String"
        if n_different < 2:
            notes.append(f"`{name}` is left out: it is the same in every row.")
        elif is_text and _holds_dates(column):
            notes.append(f"`{name}` is left out: it holds dates. A source with an `event_time` makes use of them.")
        elif is_text and n_different > min(MOST_TEXTS, frame.height // 2):
            notes.append(f"`{name}` is left out: {n_different} different texts in {frame.height} rows.")
        elif not is_text and _type(column) is None:
            notes.append(f"`{name}` is left out: its type is {column.dtype}.")
        else:
            kept.append(name)
    return kept, notes


def _holds_dates(column: pl.Series) -> bool:
    return all(_DATE.fullmatch(text) for text in column.drop_nulls().head(_DATES_LOOKED_AT))


def _safe_names(names: Iterable[str]) -> dict[str, str]:
    """Each name as one that tables, requests and LightGBM all take: letters, digits and underscores; each once."""
    found: dict[str, str] = {}
    for name in names:
        safe = re.sub(r"\W+", "_", name).strip("_") or "column"
        safe = f"c_{safe}" if safe[0].isdigit() else safe
        safe = f"{safe}_" if keyword.iskeyword(safe) else safe
        while safe in found.values():
            safe += "_"
        found[name] = safe
    return found


def _types(frame: pl.DataFrame, names: dict[str, str], row: str | None, whole_label: str | None) -> dict[str, str]:
    types = {row: "Int64"} if row else {}
    for there, here in names.items():
        types[here] = "Int64" if there == whole_label else _type(frame[there]) or "String"
    return types


def _type(column: pl.Series) -> str | None:
    """The dataframely type of a column; None when a contract has no use for it."""
    return {"Int64": "Int64", "Float64": "Float64", "Boolean": "Bool", "String": "String"}.get(str(column.dtype))


def _is_slice(column: pl.Series) -> bool:
    return str(column.dtype) in ("String", "Boolean") and 2 <= column.n_unique() <= 10


def _described(label: pl.Series) -> str:
    n_missing = label.null_count()
    missing = f" and is missing in {n_missing} rows" if n_missing else ""
    return f"{label.drop_nulls().n_unique()} different values ({label.dtype}){missing}"
