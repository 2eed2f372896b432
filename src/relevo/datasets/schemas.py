"""How the columns of a load differ from those of the version before, and which differences a table may have."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import polars as pl

from relevo.contract.model import Source
from relevo.errors import Invalid

_INTEGERS = ("Int8", "Int16", "Int32", "Int64", "Int128")
_FLOATS = ("Float32", "Float64")
_DECIMAL = re.compile(r"Decimal\(precision=(\d+), scale=(\d+)\)")


def conform(frame: pl.DataFrame, before: Mapping[str, pl.DataType], *, is_text: bool) -> pl.DataFrame:
    """The frame with types of the version before, where the frame's own only say what happens to be in it.

    A column without a value has no type of its own. In files and databases that tell no types (``is_text``), a column
    of decimals that are all whole today looks narrower than it is.
    """
    casts = []
    for name, kind in frame.schema.items():
        was = before.get(name, kind)
        has_no_value = frame[name].null_count() == frame.height
        if was != kind and (has_no_value or (is_text and widens(str(kind), str(was)))):
            casts.append(pl.col(name).cast(was))
    return frame.with_columns(casts) if casts else frame


def compare(
    source: Source,
    version: int,
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    reads: Collection[str] | None,
    without_value: Collection[str] = (),
) -> tuple[str, ...]:
    """The differences in words, when a new version may have them.

    Added columns and widened numbers always may; so may any change of a column that held no value before, and of one
    that nothing reads. A column that is read stays, and keeps its type.

    Args:
        source: Whose columns.
        version: The version before, for the message.
        before: Its columns and their types.
        after: Those of the load.
        reads: The columns that the contract and the views read; None: all of them.
        without_value: Columns that held no value in the version before.

    Raises:
        Invalid: With every difference that a new version may not have, and what to do.
    """
    changes: list[str] = []
    refused: list[str] = []
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        is_free = name in without_value or (reads is not None and name not in reads)
        if was is None:
            changes.append(f"added {name} ({now})")
        elif now is None:
            (changes if is_free else refused).append(f"removed {name} (was {was})")
        elif widens(was, now):
            changes.append(f"widened {name} from {was} to {now}")
        else:
            (changes if is_free else refused).append(f"changed {name} from {was} to {now}")
    if refused:
        raise Invalid(
            f"source {source.name}: its columns no longer fit version {version}: {', '.join(refused)}",
            hint="The contract or its views read them. Give the column its former name and type in what reads the "
            "source; or, when the new shape is meant, declare the source under another name, which begins a new table.",
        )
    return tuple(changes)


def widens(was: str, now: str) -> bool:
    """Whether every number of the type ``was`` has its place in the type ``now``; text in Polars' names.

    Integers widen to Float64, as they do when one value of a column has decimals.

    >>> widens("Int16", "Int64"), widens("Int64", "Float64"), widens("Float64", "Float32"), widens("String", "Int64")
    (True, True, False, False)
    """
    for kinds in (_INTEGERS, _FLOATS):
        if was in kinds and now in kinds:
            return kinds.index(was) < kinds.index(now)
    if was in _INTEGERS and now == "Float64":
        return True
    narrow, wide = _DECIMAL.fullmatch(was), _DECIMAL.fullmatch(now)
    if narrow is None or wide is None or was == now:
        return False
    digits, scale = int(narrow[1]), int(narrow[2])
    return int(wide[2]) >= scale and int(wide[1]) - int(wide[2]) >= digits - scale
