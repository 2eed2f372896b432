"""Calls a team's loader and turns its answer into a frame that the rest may rely on. Runs in child processes only.

What is relied on: the declared columns are there; times are aware, and in UTC with microseconds; a missing number is
null, never NaN; no row was known later than the asked time; key and event time together name one row.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from relevo.contract.model import Source
from relevo.errors import Invalid, nearest

TIME = pl.Datetime("us", "UTC")
_SAMPLE_ROWS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_source(
    source: Source, package: Path, *, since: datetime | None = None, until: datetime | None = None
) -> pl.DataFrame:
    """The rows of ``source`` that became known in ``(since, until]``, sorted by event time and key.

    Args:
        source: The declared source.
        package: Folder from which the team's package is imported.
        since: Leave out what was known by then; None: from the beginning.
        until: Leave out what became known later; None: everything.

    Raises:
        Invalid: The loader, or what it gave, is not as declared. An empty answer is allowed here.
    """
    frame = _as_frame(source, _call(resolve(source.loader, package), since, until))
    _require_columns(source, frame.columns)
    _require_names(source, frame)
    rows = frame.lazy().with_columns(_casts(source, frame))
    known = known_at(source)
    if known is not None:
        rows = rows.filter(_is_between(known, since, until))
    # One pass: materialising reads a few dozen rows at a time, where each pass costs more than the rows.
    frame = rows.sort(_naming(source)).collect()
    _require_unique(source, frame)
    return frame


def known_at(source: Source) -> pl.Expr | None:
    """When a row counts: when it has happened *and* is known. Null: not known yet. None: the source has no times."""
    if source.event_time is None or source.known_time is None:
        time = source.event_time or source.known_time
        return None if time is None else pl.col(time)
    known = pl.col(source.known_time)
    return pl.when(known.is_not_null()).then(pl.max_horizontal(known, pl.col(source.event_time)))


def time_literal(time: datetime) -> pl.Expr:
    """The time as a literal; a hundred times faster to make than ``pl.lit`` of an aware datetime."""
    return pl.lit((time - _EPOCH) // timedelta(microseconds=1), dtype=pl.Int64).cast(TIME)


def resolve(reference: str, package: Path) -> Any:
    """The object that ``module:name`` refers to, with ``package`` first on the import path.

    Raises:
        Invalid: There is no such name in the module.
    """
    folder = str(package)
    if folder not in sys.path:
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
    module_name, _, name = reference.partition(":")
    module = importlib.import_module(module_name)
    try:
        return getattr(module, name)
    except AttributeError:
        names = [known for known in vars(module) if not known.startswith("_")]
        raise Invalid(f"{reference}: {module_name} has no {name!r}{_or_nearest(name, names)}") from None


def describe_rows(frame: pl.DataFrame, rows: int = _SAMPLE_ROWS) -> str:
    """The first rows as text for a message, such as ``{id: 7, at: 2013-01-01 00:00:00+00:00}``."""
    texts = (", ".join(f"{name}: {value}" for name, value in row.items()) for row in frame.head(rows).to_dicts())
    return "; ".join(f"{{{text}}}" for text in texts)


def _naming(source: Source) -> list[str]:
    """The columns that together name a row: a row of events is named by its time too."""
    return list(dict.fromkeys([*([source.event_time] if source.event_time else []), *source.key]))


def _call(loader: Callable[..., object], since: datetime | None, until: datetime | None) -> object:
    parameters = inspect.signature(loader).parameters.values()
    accepts_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}
    wanted = {"since": since, "until": until}
    return loader(**{name: value for name, value in wanted.items() if accepts_any or name in names})


def _as_frame(source: Source, answer: object) -> pl.DataFrame:
    if isinstance(answer, pl.LazyFrame):
        return answer.collect()
    if isinstance(answer, pl.DataFrame):
        return answer
    if type(answer).__module__.split(".")[0] == "pandas" and hasattr(answer, "columns"):
        import pyarrow

        with warnings.catch_warnings():  # pyarrow 25 reads zoned times in a way that pandas 3.1 deprecates
            warnings.simplefilter("ignore", DeprecationWarning)
            return pl.DataFrame(pyarrow.Table.from_pandas(answer, preserve_index=False))
    if hasattr(answer, "__arrow_c_stream__"):
        return pl.DataFrame(answer)
    raise Invalid(
        f"source {source.name}: the loader {source.loader} should give a Polars, pandas or Arrow table, "
        f"got {type(answer).__name__}"
    )


def _require_columns(source: Source, columns: list[str]) -> None:
    roles = [*(("key", name) for name in source.key), ("event_time", source.event_time)]
    for role, name in [*roles, ("known_time", source.known_time)]:
        if name is not None and name not in columns:
            raise Invalid(
                f"source {source.name}: the {role} column {name!r} is not in what {source.loader} gave"
                f"{_or_nearest(name, columns)} (columns: {', '.join(columns)})"
            )


def _is_between(known: pl.Expr, since: datetime | None, until: datetime | None) -> pl.Expr:
    keep = known.is_not_null()
    if since is not None:
        keep &= known > time_literal(since)
    if until is not None:
        keep &= known <= time_literal(until)
    return keep


def _casts(source: Source, frame: pl.DataFrame) -> list[pl.Expr]:
    """What brings the frame into plain types; its times checked."""
    casts = []
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Datetime):
            if kind.time_zone is None:
                raise Invalid(
                    f"source {source.name}: column {name!r} holds naive times (without a zone), for example "
                    f"{frame[name].drop_nulls().head(1).to_list()}; give it a zone in the loader, such as "
                    f".dt.replace_time_zone('UTC')"
                )
            if kind != TIME:
                casts.append(pl.col(name).cast(TIME))
        elif kind.is_float():
            casts.append(pl.col(name).fill_nan(None))
        elif kind.is_unsigned_integer():
            casts.append(pl.col(name).cast(pl.Int64))  # Delta has no unsigned integers
        elif isinstance(kind, (pl.Categorical, pl.Enum)) or kind == pl.Null:
            casts.append(pl.col(name).cast(pl.String))
        elif isinstance(kind, (pl.Object, pl.Duration, pl.Time)):
            raise Invalid(f"source {source.name}: column {name!r} has a type that a table cannot keep: {kind}")
    for role, time in (("event_time", source.event_time), ("known_time", source.known_time)):
        if time is not None and not isinstance(frame.schema[time], pl.Datetime):
            kind = frame.schema[time]
            raise Invalid(f"source {source.name}: the {role} column {time!r} should hold aware datetimes, got {kind}")
    return casts


def _require_names(source: Source, frame: pl.DataFrame) -> None:
    for name in _naming(source):
        if missing := frame[name].null_count():
            raise Invalid(f"source {source.name}: {missing} of {frame.height} rows have no {name!r}, which names a row")


def _require_unique(source: Source, frame: pl.DataFrame) -> None:
    names = _naming(source)
    distinct = frame.select(pl.struct(names).n_unique()).item() if frame.height > 1 else frame.height
    if distinct == frame.height:
        return
    repeated = frame.select(names).filter(frame.select(names).is_duplicated())
    raise Invalid(
        f"source {source.name}: {frame.height - distinct} of {frame.height} rows repeat another row's "
        f"{' and '.join(names)}, for example {describe_rows(repeated.unique(maintain_order=True))}"
    )


def _or_nearest(name: str, names: Iterable[str]) -> str:
    near = nearest(name, names)
    return f"; did you mean {near!r}?" if near else ""
