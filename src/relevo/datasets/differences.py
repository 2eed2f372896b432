"""What a comparison of two versions of a dataset tells. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Summary:
    """A column of one version at a glance.

    ``null_rate`` is a share of the rows, 0 to 1. Numbers have ``mean``, ``minimum`` and ``maximum``; times have
    the last two, as ISO 8601 text; text and booleans have ``distinct``, the number of different values without null.
    None: the column is not of this type, or has no value but null.
    """

    null_rate: float
    mean: float | None = None
    minimum: int | float | str | None = None
    maximum: int | float | str | None = None
    distinct: int | None = None


@dataclass(frozen=True, slots=True)
class CellChange:
    """A cell that differs: the row's name, such as ``id: 7``, and both values as text. ``null`` stands for no value."""

    row: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """One column of either version. Its types are None where it is not there.

    ``changed`` counts the cells that differ among the rows that both versions have; None where they cannot be compared:
    the column is new, gone, has another type or names the row, or rows have no name.
    """

    name: str
    type_before: str | None
    type_after: str | None
    before: Summary | None
    after: Summary | None
    changed: int | None = None
    examples: tuple[CellChange, ...] = ()

    @property
    def schema(self) -> Literal["same", "added", "removed", "retyped"]:
        """What became of the column itself."""
        if self.type_before is None:
            return "added"
        if self.type_after is None:
            return "removed"
        return "same" if self.type_before == self.type_after else "retyped"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions of one dataset beside each other.

    With ``named_by`` rows are the same when those columns are, and ``changed`` counts the rows of which another column
    that both have in the same type differs. Without it whole rows are counted: one that changed is one removed and one
    added, ``changed`` is None, and ``note`` says why.
    """

    rows_before: int
    rows_after: int
    named_by: tuple[str, ...]
    note: str | None
    added: int
    removed: int
    changed: int | None
    added_rows: tuple[str, ...]  # a few of them, as text
    removed_rows: tuple[str, ...]
    columns: tuple[ColumnDifference, ...]

    @property
    def is_same(self) -> bool:
        """Whether names, types and values are the same."""
        has_moved = self.added or self.removed or self.changed
        return not has_moved and all(column.schema == "same" for column in self.columns)
