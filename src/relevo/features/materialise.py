"""Brings the online store up to date: reads what became known since the last time, and appends it to its entities.

A view that is new, or whose code has changed, is filled anew: part by part under a generation that nobody reads. So
memory is bounded, a crash costs one part, and what was served before is served until all is there. Runs in a child
process; imports the team's package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from relevo.contract.model import Source
from relevo.datasets.checks import without_quarantined
from relevo.datasets.loading import read_source
from relevo.errors import Conflict
from relevo.features.merging import Entries, merged
from relevo.features.model import FeatureView, view_id
from relevo.features.online import OnlineStore
from relevo.features.policy import check_views, has_times
from relevo.features.progress import Filled, Filling, Record, microseconds, new_generation, time_of
from relevo.features.rows import KNOWN, content_of, read_rows

#: Rows that are made into entries at once; more are filled in part by part.
PART_ROWS = 250_000

#: Beside key columns, which may have any other name.
_ROWS, _PART = "__rows", "__part"


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
        part_rows: Rows that are made into entries at once.
        wall_now: Wall time.

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
        part_rows: int = PART_ROWS,
        wall_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        check_views(views, sources)
        self._store, self._model, self._package, self._origin = store, model, package, origin
        self._part_rows, self._wall_now = part_rows, wall_now
        self._views = {view_id(model, view): view for view in views}
        used = {view.source for view in views}
        self._sources = {source.name: source for source in sources if source.name in used}
        self._is_first = True

    def materialise(self, until: datetime) -> Materialised:
        """Make the store answer as of ``until``. Idempotent: what is filled already is not read again.

        A crash leaves the store as it was, but for finished parts that nobody reads; the next call goes on after them.
        A source without times is read whole, once in the life of this object.

        Raises:
            Conflict: Another process fills the same views.
            Unavailable: The store cannot be reached, or takes no more.
        """
        if not self._views:
            return Materialised(0, until)
        record = self._store.drop_retired(self._model, self._store.record(self._model))
        read = 0
        anew = [view for view in self._views if self._is_to_be_filled(view, record)]
        if anew:
            filled, record = self._fill(anew, record, until)
            read += filled
        self._is_first = False
        through = min(record.filled[view].through_us for view in self._views)
        if through < microseconds(until):
            advanced, record = self._advance(record, until)
            read += advanced
        self._store.drop_retired(self._model, record)
        return Materialised(read, time_of(min(record.filled[view].through_us for view in self._views)))

    def _is_to_be_filled(self, view: str, record: Record) -> bool:
        filled = record.filled.get(view)
        if filled is None or filled.origin != self._origin:
            return True
        return self._is_first and not has_times(self._source(view))

    def _source(self, view: str) -> Source:
        return self._sources[self._views[view].source]

    # Anew.

    def _fill(self, views: Sequence[str], record: Record, until: datetime) -> tuple[int, Record]:
        """Fill the views under new generations, and swap them all at once."""
        known: dict[tuple[str, int], pl.LazyFrame] = {}
        until_us = max([microseconds(until), *(each.through_us for v, each in record.filled.items() if v in views)])
        done: dict[str, Filled] = {}
        small: Entries = []
        read = 0
        for group in self._groups(views):
            filling = record.filling_of(group)
            if filling is not None and (filling.origin != self._origin or filling.until_us > until_us):
                filling = None
            upto = until_us if filling is None else filling.until_us
            rows_of: dict[str, pl.DataFrame] = {}
            for view in group:
                which = (self._source(view).name, upto)
                if which not in known:
                    known[which] = self._table(view, None, upto)
                rows_of[view] = self._read(view, known[which])
            if sum(rows.height for rows in rows_of.values()) <= self._part_rows:
                generation = new_generation()
                small += self._merged(rows_of, upto, generation)
            else:
                filling, record = self._fill_parts(rows_of, record, upto, filling)
                generation = filling.generation
            now_us = microseconds(self._wall_now())
            for place, (view, rows) in enumerate(rows_of.items()):
                newest = self._newest(view, rows, None)
                done[view] = Filled(generation, upto, self._origin, newest, now_us, content_of(rows), place)
                read += rows.height
        return read, self._commit({view: record.filled.get(view) for view in views}, done, small)

    def _groups(self, views: Sequence[str]) -> list[tuple[str, ...]]:
        """Views that share entries: of one entity, and filled anew at the same times."""
        groups: dict[tuple[tuple[str, ...], bool], list[str]] = {}
        for view in views:
            key = (tuple(self._views[view].entity.key), has_times(self._source(view)))
            groups.setdefault(key, []).append(view)
        return [tuple(group) for group in groups.values()]

    def _merged(self, rows_of: Mapping[str, pl.DataFrame], until_us: int, generation: bytes) -> Entries:
        changes = {place: (self._views[view], rows) for place, (view, rows) in enumerate(rows_of.items())}
        return merged(changes, until_us, generation, len(rows_of))

    def _fill_parts(
        self, rows_of: dict[str, pl.DataFrame], record: Record, until_us: int, filling: Filling | None
    ) -> tuple[Filling, Record]:
        """Write the parts that are not there yet."""
        group = tuple(rows_of)
        key = list(self._views[group[0]].entity.key)
        for view in group:
            rows_of[view] = rows_of[view].sort(key, maintain_order=True)
        bounds = _bounds(list(rows_of.values()), key, self._part_rows)
        parts = len(bounds) - 1
        digests = tuple(int(rows.hash_rows().sum()) for rows in rows_of.values())
        if filling is None or (filling.rows, filling.parts) != (digests, parts):
            filling, before = Filling(new_generation(), group, self._origin, until_us, digests, parts, 0), filling
            record = self._note(before, filling)
        for part in range(filling.done, parts):
            some = {
                view: rows[start:end]
                for (view, rows), start, end in zip(rows_of.items(), bounds[part], bounds[part + 1], strict=True)
            }
            self._store.storage.put(self._merged(some, until_us, filling.generation))
            before, filling = filling, msgspec.structs.replace(filling, done=part + 1)
            record = self._note(before, filling)
        return filling, record

    def _note(self, before: Filling | None, filling: Filling) -> Record:
        def change(record: Record) -> Record:
            if record.filling_of(filling.views) != before:
                raise Conflict(f"{', '.join(filling.views)}: being filled by another process")
            return record.replaced({}, filling)

        return self._store.update(self._model, change)

    # What is newer.

    def _advance(self, record: Record, until: datetime) -> tuple[int, Record]:
        """Append what became known since; the views go on together."""
        read = 0
        until_us, now_us = microseconds(until), microseconds(self._wall_now())
        tables: dict[tuple[str, int], pl.LazyFrame] = {}
        changes: dict[bytes, dict[int, tuple[FeatureView, pl.DataFrame]]] = {}
        done: dict[str, Filled] = {}
        for view in self._views:
            filled = record.filled[view]
            done[view] = msgspec.structs.replace(
                filled, through_us=max(filled.through_us, until_us), origin=self._origin, recorded_us=now_us
            )
            source = self._source(view)
            if not has_times(source) or filled.through_us >= until_us:
                continue
            which = (source.name, filled.through_us)
            if which not in tables:
                tables[which] = self._table(view, filled.through_us, until_us)
            rows = self._read(view, tables[which])
            read += rows.height
            changes.setdefault(filled.generation, {})[filled.place] = (self._views[view], rows)
            done[view] = msgspec.structs.replace(
                done[view],
                newest_us=self._newest(view, rows, filled.newest_us),
                content=content_of(rows, filled.content),
            )
        entries: Entries = []
        for generation, of_views in changes.items():
            width = 1 + max(each.place for each in record.filled.values() if each.generation == generation)
            entries += merged(of_views, until_us, generation, width, self._store.entries)
        # Views of others that share the entries must not have been advanced meanwhile either.
        before = {v: each for v, each in record.filled.items() if v in done or each.generation in changes}
        return read, self._commit(before, done, entries)

    def _table(self, view: str, since_us: int | None, until_us: int) -> pl.LazyFrame:
        since, source = None if since_us is None else time_of(since_us), self._source(view)
        rows = read_source(source, self._package, since=since, until=time_of(until_us))
        return without_quarantined(source, self._package, rows).lazy()

    def _read(self, view: str, table: pl.LazyFrame) -> pl.DataFrame:
        return read_rows(self._views[view], self._source(view), table).collect()

    def _newest(self, view: str, rows: pl.DataFrame, before: int | None) -> int | None:
        """When the newest row so far began to count."""
        if rows.is_empty() or not has_times(self._source(view)):
            return before
        newest = int(rows[KNOWN].to_physical()[-1])
        return newest if before is None else max(newest, before)

    def _commit(self, before: Mapping[str, Filled | None], done: dict[str, Filled], entries: Entries) -> Record:
        def change(record: Record) -> Record:
            for view, expected in before.items():
                now = record.filled.get(view)
                if now != expected:
                    through = now and now.progress.through
                    raise Conflict(f"view {view} was filled by another process through {through}")
            return record.replaced(done)

        return self._store.update(self._model, change, entries)


def _bounds(rows_of: Sequence[pl.DataFrame], key: list[str], part_rows: int) -> list[list[int]]:
    """Where the parts of each frame, sorted by key, begin and end: all rows of an entity are in one part."""
    counts = [rows.group_by(key, maintain_order=True).len(_ROWS) for rows in rows_of]
    entities = pl.concat(counts, how="vertical_relaxed").group_by(key).agg(pl.col(_ROWS).sum()).sort(key)
    before = pl.col(_ROWS).cum_sum() - pl.col(_ROWS)
    entities = entities.select(*key, (before // part_rows).alias(_PART))
    last = int(entities[_PART].to_numpy()[-1])
    bounds = []
    for own in counts:
        placed = own.cast({name: entities.schema[name] for name in key}).join(entities, on=key, maintain_order="left")
        ends = placed[_ROWS].cum_sum().to_numpy()
        firsts = np.searchsorted(placed[_PART].to_numpy(), np.arange(last + 2))
        bounds.append([int(ends[first - 1]) if first else 0 for first in firsts])
    return [list(each) for each in zip(*bounds, strict=True)]
