"""Brings the online store up to date: reads what became known since the last time, and appends it to its entities.

The same rows and the same arithmetic as ``point_in_time``: prefix sums are continued from where they stood, in the same
order, so that online and offline values agree. Runs in a child process; imports the team's package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from relevo.contract.model import Source
from relevo.datasets.loading import read_source
from relevo.errors import Invalid
from relevo.features.model import FeatureView, view_id
from relevo.features.online import (
    KEPT_BEFORE,
    Entry,
    OnlineStore,
    Progress,
    encode_key,
    entry_name,
    microseconds,
    prefix_columns,
    value_columns,
)
from relevo.features.policy import check_views, has_times
from relevo.features.rows import EVENT, KNOWN, number_column, read_rows, value_column

Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Materialised:
    """What one call did: rows read over all views, and the time through which the store is now up to date."""

    rows: int
    through: datetime


class Materialiser:
    """Keeps the views of one model up to date in the online store.

    Args:
        store: Written by this object alone.
        model: Name of the model.
        views: Its views.
        sources: The declared sources.
        package: Folder from which the team's package is imported.
        origin: Digest of the code and declarations behind the sources. When it changes, everything is computed anew.

    Raises:
        Invalid: The views do not fit the sources.
    """

    def __init__(
        self,
        store: OnlineStore,
        *,
        model: str,
        views: Sequence[FeatureView],
        sources: Sequence[Source],
        package: Path,
        origin: str,
    ) -> None:
        check_views(views, sources)
        _refuse_what_is_not_served(views)
        self._store, self._model, self._package, self._origin = store, model, package, origin
        self._views = {view_id(model, view): view for view in views}
        used = {view.source for view in views}
        self._sources = {source.name: source for source in sources if source.name in used}
        self._is_first = True

    def materialise(self, until: datetime) -> Materialised:
        """Make the store answer as of ``until``. Idempotent: what is filled already is not read again.

        A crash leaves the store as it was. A source without times is read whole, once in the life of this object.

        Raises:
            Conflict: Another process fills the same views.
        """
        if not self._views:
            return Materialised(0, until)
        before = {view: self._store.progress(view) for view in self._views}
        since = self._since(list(before.values()))
        if since is not None and until <= since and not self._is_first:
            return Materialised(0, since)
        until = until if since is None else max(until, since)
        entries: dict[bytes, Entry] = {}
        tables: dict[str, pl.LazyFrame] = {}
        read = 0
        for view_name, view in self._views.items():
            source = self._sources[view.source]
            if not has_times(source) and not (self._is_first or since is None):
                continue
            if source.name not in tables:
                tables[source.name] = read_source(source, self._package, since=since, until=until).lazy()
            rows = read_rows(view, source, tables[source.name]).collect()
            if rows.is_empty():
                continue
            read += rows.height
            entries |= self._merged(view_name, view, rows, until, is_new=since is None or not has_times(source))
        done = Progress(until, self._origin)
        self._store.write(
            self._model,
            entries,
            progress=dict.fromkeys(self._views, done),
            expected=before,
            cleared=self._cleared(rebuild=since is None),
        )
        self._is_first = False
        return Materialised(read, until)

    def _since(self, progress: list[Progress | None]) -> datetime | None:
        """Where to go on; None to begin anew, because a view is new, or the code behind the rows has changed."""
        first = progress[0]
        if first is None or first.origin != self._origin or any(each != first for each in progress):
            return None
        return first.through

    def _cleared(self, *, rebuild: bool) -> list[str]:
        return [
            name
            for name, view in self._views.items()
            if rebuild or (self._is_first and not has_times(self._sources[view.source]))
        ]

    def _merged(
        self, name: str, view: FeatureView, rows: pl.DataFrame, until: datetime, *, is_new: bool
    ) -> dict[bytes, Entry]:
        """The entries of every entity that has new rows."""
        places: dict[tuple[Any, ...], list[int]] = {}
        for place, key in enumerate(zip(*(rows[name].to_list() for name in view.entity.key), strict=True)):
            places.setdefault(key, []).append(place)
        names = {key: entry_name(name, encode_key(key)) for key in places}
        kept = {} if is_new else self._store.entries(names.values())
        batch = _Batch(view, rows, microseconds(until))
        return {names[key]: batch.append(kept.get(names[key], Entry()), own) for key, own in places.items()}


def _refuse_what_is_not_served(views: Sequence[FeatureView]) -> None:
    for view in views:
        for feature in view.features:
            if feature.aggregation.is_windowed and not feature.aggregation.is_running:
                raise Invalid(f"feature {feature.name} of {view.name}: {feature.aggregation} cannot be served yet")
            if feature.default is not None:
                raise Invalid(f"feature {feature.name} of {view.name}: a default cannot be served yet")
        if view.required:
            raise Invalid(f"feature view {view.name}: required cannot be served yet")


class _Batch:
    """New rows of one view, sorted by known time, ready to be appended to entries."""

    def __init__(self, view: FeatureView, rows: pl.DataFrame, until_us: int) -> None:
        kept_us = int(KEPT_BEFORE.total_seconds() * 1e6)
        self._has_latest = any(not feature.aggregation.is_windowed for feature in view.features)
        self._latest_from = until_us - kept_us
        longest = view.windows[-1].total_seconds() * 1e6 if view.windows else None
        self._windows_from = None if longest is None else until_us - kept_us - int(longest)
        self._known: Integers = rows[KNOWN].to_numpy().view(np.int64)
        self._event: Integers = rows[EVENT].to_numpy().view(np.int64)
        self._values = [rows[value_column(column)].to_list() for column in value_columns(view)]
        has_count, columns = prefix_columns(view)
        # What each prefix adds up, row by row, in the order that readers expect.
        self._added: list[np.ndarray[Any, Any]] = [np.ones(rows.height, dtype=np.int64)] if has_count else []
        for column in columns:
            number = rows[number_column(column)].to_numpy()
            is_missing = np.isnan(number)  # as Polars gives nulls
            self._added += [(~is_missing).astype(np.int64), np.where(is_missing, 0.0, number)]

    def append(self, entry: Entry, places: list[int]) -> Entry:
        """``entry`` with this batch's rows at ``places`` after its own; what is too old to be asked for is dropped."""
        own = np.asarray(places, dtype=np.int64)
        if self._has_latest:
            entry = self._append_latest(entry, own)
        if self._windows_from is not None:
            entry = self._append_windows(entry, own, self._windows_from)
        return entry

    def _append_latest(self, entry: Entry, own: Integers) -> Entry:
        old = len(entry.known) // 8
        known = np.concatenate([np.frombuffer(entry.known, dtype=np.int64), self._known[own]])
        event = np.concatenate([np.frombuffer(entry.event, dtype=np.int64), self._event[own]])
        kept = np.flatnonzero(_is_last_of_ties(known) & (event >= np.maximum.accumulate(event)))
        kept = kept[_first_needed(known[kept], self._latest_from) :]
        ends = np.frombuffer(entry.ends, dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]]) if old else ends
        rows = [
            entry.rows[starts[place] : ends[place]] if place < old else self._row(own[place - old]) for place in kept
        ]
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        return msgspec.structs.replace(
            entry,
            known=known[kept].tobytes(),
            event=event[kept].tobytes(),
            ends=np.cumsum(lengths).tobytes(),
            rows=b"".join(rows),
        )

    def _row(self, place: int) -> bytes:
        return msgspec.msgpack.encode([values[place] for values in self._values])

    def _append_windows(self, entry: Entry, own: Integers, needed_from: int) -> Entry:
        known = self._known[own]
        last = _is_last_of_ties(known)
        known = np.concatenate([np.frombuffer(entry.window_known, dtype=np.int64), known[last]])
        first = _first_needed(known, needed_from)
        prefixes = []
        for number, added in enumerate(self._added):
            old = np.frombuffer(entry.prefixes[number], dtype=added.dtype) if entry.prefixes else added[:0]
            # One addition after the other from where it stood, as the offline prefix sums do it.
            sums = np.cumsum(np.concatenate([old[-1:], added[own]]))[len(old[-1:]) :][last]
            prefixes.append(np.concatenate([old, sums])[first:].tobytes())
        return msgspec.structs.replace(
            entry,
            window_known=known[first:].tobytes(),
            prefixes=tuple(prefixes),
            is_trimmed=entry.is_trimmed or first > 0,
        )


def _is_last_of_ties(known: Integers) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.append(known[1:] != known[:-1], True)


def _first_needed(known: Integers, needed_from: int) -> int:
    """Index of the last moment at or before ``needed_from``: what came earlier is no answer to anything asked later."""
    return max(0, int(np.searchsorted(known, needed_from, side="right")) - 1)
