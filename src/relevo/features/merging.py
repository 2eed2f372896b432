"""Makes the entries of the online store from rows: all of an entity at once, or new ones after those that it has.

The same rows and the same arithmetic as ``point_in_time``: prefix sums are continued from where they stood, in the same
order, so that online and offline values agree. Runs in child processes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise, repeat
from typing import Any

import msgspec
import numpy as np
import polars as pl

from relevo.features.entries import KEPT_BEFORE, Entry, Items, Layout, Older, encode_entry
from relevo.features.model import FeatureView
from relevo.features.rows import EVENT, KNOWN, bound_column, number_column, value_column

Integers = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Array = np.ndarray[Any, Any]
Entries = list[tuple[bytes, bytes]]

_KEPT_US = int(KEPT_BEFORE.total_seconds() * 1e6)
_decode_values = msgspec.msgpack.Decoder(list[Any]).decode
_decode_older = msgspec.msgpack.Decoder(Older).decode


def merged(
    changes: Mapping[int, tuple[FeatureView, pl.DataFrame]],
    until_us: int,
    generation: bytes,
    width: int = 1,
    kept: Callable[[Sequence[bytes]], list[Entry | None]] | None = None,
) -> Entries:
    """The entries of every entity that has rows, encoded, by name.

    Args:
        changes: By its place in the entries: a view, and rows as ``read_rows`` gives them.
        until_us: The time through which the views are then filled; what is too old to be asked for is dropped.
        generation: Begins the names.
        width: How many views the entries are of.
        kept: Gives the present entries by name; None when there are none. Items of other views stay as they are.
    """
    batches = {place: _Batch(view, rows, until_us) for place, (view, rows) in changes.items() if not rows.is_empty()}
    keys = sorted({key for batch in batches.values() for key in batch.keys})  # as SQLite writes names best
    names = [generation + key for key in keys]
    present = [] if kept is None else kept(names)
    if not any(present):
        # Each view's items are encoded as they are made: lists of all would keep the garbage collector busy.
        encoded = [batches[place].all_encoded() if place in batches else {} for place in range(width)]
        items = zip(*(map(each.get, keys) for each in encoded), strict=True)
        return list(zip(names, map(encode_entry, items), strict=True))
    entries: dict[bytes, Entry] = {
        key: [None] * width if entry is None else entry for key, entry in zip(keys, present, strict=True)
    }
    for place, batch in batches.items():
        for key, start, end in zip(batch.keys, batch.starts, batch.ends, strict=True):
            entries[key][place] = batch.append(entries[key][place], start, end)
    return list(zip(names, map(encode_entry, entries.values()), strict=True))


class _Batch:
    """Rows of one view, those of an entity together and sorted by known time.

    Attributes:
        keys: The entities, encoded.
        starts: Where the rows of each begin.
        ends: Where they end.
    """

    def __init__(self, view: FeatureView, rows: pl.DataFrame, until_us: int) -> None:
        self._rows = rows = rows.sort(view.entity.key, maintain_order=True)
        self._layout = layout = Layout(view)
        self._starts = entity_starts(rows, view.entity.key)
        self.keys = list(map(encode_entry, rows.select(pl.col(view.entity.key).gather(self._starts)).rows()))
        self.starts = self._starts.tolist()
        self.ends = [*self.starts[1:], rows.height]
        self._known: Integers = _microseconds(rows, KNOWN)
        self._event: Integers = _microseconds(rows, EVENT)
        self._latest_from = until_us - _KEPT_US
        longest = view.windows[-1].total_seconds() * 1e6 if view.windows else 0.0
        self._windows_from = until_us - _KEPT_US - int(longest)
        self._columns = [value_column(column) for column in layout.values]
        # What each prefix adds up, row by row, in the order of the layout.
        self._added: list[Array] = [np.ones(rows.height, dtype=np.int64)] if layout.counts_rows else []
        for column in layout.numbers:
            number = rows[number_column(column)].to_numpy()
            is_missing = np.isnan(number)  # as Polars gives nulls
            self._added += [(~is_missing).astype(np.int64), np.where(is_missing, 0.0, number)]
        # What features look at row by row; nulls are NaN, as Polars gives them.
        arrays = [*map(bound_column, layout.compared), *map(number_column, layout.spread)]
        self._arrays: list[Array] = [rows[name].to_numpy() for name in arrays]
        self._picked = [value_column(column) for column in layout.picked]

    # All at once.

    def all_encoded(self) -> dict[bytes, msgspec.Raw]:
        """The items of entities that had none, encoded, by entity."""
        parts: list[Iterable[Any]] = []
        if self._layout.older is not None:
            parts += self._latest()
        if self._layout.windows is not None:
            parts += self._windows()
        encoded = map(encode_entry, zip(*parts, strict=False))
        return dict(zip(self.keys, map(msgspec.Raw, encoded), strict=True))

    def _latest(self) -> list[Iterable[Any]]:
        """Known time, event time, values and older rows of each entity."""
        group = self._groups()
        kept = np.flatnonzero(self._is_last_of_ties() & (self._event >= _running_maximum(self._event, group)))
        kept = kept[_is_needed(self._known[kept], group[kept], self._latest_from)]
        is_head = np.append(group[kept][1:] != group[kept][:-1], True)
        heads = kept[is_head]
        values = [self._rows[column].gather(heads).to_list() for column in self._columns]
        older = repeat(None) if is_head.all() else self._older(kept, is_head)
        return [self._known[heads].tolist(), self._event[heads].tolist(), *values, older]

    def _older(self, kept: Integers, is_head: Flags) -> Iterator[bytes | None]:
        place = 0
        for head in np.flatnonzero(is_head).tolist():
            own = kept[place:head]
            place = head + 1
            yield self._pack(self._known[own], self._event[own], self._encoded(own)) if len(own) else None

    def _windows(self) -> list[Iterable[Any]]:
        """Times, whether they are trimmed, prefixes and values of each entity."""
        group = self._groups()
        is_needed = _is_needed(self._known, group, self._windows_from)
        counts = np.add.reduceat(is_needed.astype(np.int64), self._starts)
        is_trimmed = counts < np.diff(np.append(self._starts, len(group)))
        ends = [0, *np.cumsum(counts).tolist()]
        bounds = [8 * end for end in ends]
        added = {str(number): column for number, column in enumerate(self._added)}
        sums = pl.DataFrame({"group": group, **added}).select(pl.exclude("group").cum_sum().over("group"))
        arrays = [self._known, *(column.to_numpy() for column in sums), *self._arrays]
        packed = (each[is_needed].tobytes() for each in arrays)
        known, *others = ([whole[a:b] for a, b in pairwise(bounds)] for whole in packed)
        values = (self._rows[name].filter(is_needed).to_list() for name in self._picked)
        picked = ([encode_entry(every[a:b]) for a, b in pairwise(ends)] for every in values)
        return [known, is_trimmed.tolist(), *others, *picked]

    def _groups(self) -> Integers:
        """The number of its entity, for each row."""
        lengths = np.diff(np.append(self._starts, len(self._known)))
        return np.repeat(np.arange(len(self._starts), dtype=np.int64), lengths)

    def _is_last_of_ties(self) -> Flags:
        last = np.append(self._known[1:] != self._known[:-1], True)
        last[self._starts[1:] - 1] = True
        return last

    # One after the other.

    def append(self, items: Items | None, start: int, end: int) -> Items:
        """An entity's items with the rows from ``start`` to ``end`` after its own."""
        layout = self._layout
        items = [None] * layout.width if items is None else items
        if layout.older is not None:
            items[: layout.older + 1] = self._append_latest(items[: layout.older + 1], start, end)
        if layout.windows is not None:
            items[layout.windows :] = self._append_windows(items[layout.windows :], start, end)
        return items

    def _append_latest(self, items: Items, start: int, end: int) -> Items:
        known, event, rows = self._unpacked(items)
        old = len(rows)
        known = np.concatenate([known, self._known[start:end]])
        event = np.concatenate([event, self._event[start:end]])
        is_last_of_ties = np.append(known[1:] != known[:-1], True)
        kept = np.flatnonzero(is_last_of_ties & (event >= np.maximum.accumulate(event)))
        kept = kept[_is_needed(known[kept], np.zeros(len(kept), dtype=np.int64), self._latest_from)]
        *before, head = kept.tolist()
        packed = None
        if before:
            bytes_of = [rows[p] if p < old else encode_entry(self._values_of(start + p - old)) for p in before]
            packed = self._pack(known[before], event[before], bytes_of)
        values = items[2:-1] if head < old else self._values_of(start + head - old)
        return [int(known[head]), int(event[head]), *values, packed]

    # One by one, a column's lists are read many times faster than its series.

    @cached_property
    def _latest_values(self) -> list[list[Any]]:
        return [self._rows[name].to_list() for name in self._columns]

    @cached_property
    def _picked_values(self) -> list[list[Any]]:
        return [self._rows[name].to_list() for name in self._picked]

    def _values_of(self, place: int) -> list[Any]:
        return [column[place] for column in self._latest_values]

    def _unpacked(self, items: Items) -> tuple[Integers, Integers, list[bytes]]:
        """Times and encoded values of the rows that an entry has, oldest first."""
        if items[0] is None:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), []
        known, event, rows = np.array(items[:1]), np.array(items[1:2]), [encode_entry(items[2:-1])]
        if items[-1] is None:
            return known, event, rows
        older = _decode_older(items[-1])
        bounds = [0, *np.frombuffer(older.ends, dtype=np.int64).tolist()]
        return (
            np.concatenate([np.frombuffer(older.known, dtype=np.int64), known]),
            np.concatenate([np.frombuffer(older.event, dtype=np.int64), event]),
            [older.rows[a:b] for a, b in pairwise(bounds)] + rows,
        )

    def _append_windows(self, items: Items, start: int, end: int) -> Items:
        known, is_trimmed, *others = items
        prefixes, arrays, picked = _parted(others, len(self._added), len(self._arrays))
        times = np.concatenate([np.frombuffer(known or b"", dtype=np.int64), self._known[start:end]])
        is_needed = _is_needed(times, np.zeros(len(times), dtype=np.int64), self._windows_from)
        sums: Items = []
        for before, added in zip(prefixes, self._added, strict=True):
            old = np.frombuffer(before or b"", dtype=added.dtype)
            # One addition after the other from where it stood, as the offline prefix sums do it.
            new = np.cumsum(np.concatenate([old[-1:], added[start:end]]))[len(old[-1:]) :]
            sums.append(np.concatenate([old, new])[is_needed].tobytes())
        for before, array in zip(arrays, self._arrays, strict=True):
            sums.append(np.concatenate([np.frombuffer(before or b""), array[start:end]])[is_needed].tobytes())
        for before, column in zip(picked, self._picked_values, strict=True):
            values = [*(_decode_values(before) if before else ()), *column[start:end]]
            sums.append(encode_entry([each for each, keep in zip(values, is_needed.tolist(), strict=True) if keep]))
        return [times[is_needed].tobytes(), bool(is_trimmed) or not is_needed.all(), *sums]

    def _encoded(self, places: Iterable[int]) -> list[bytes]:
        """The values of some rows, as msgpack arrays."""
        found = self._rows.select(pl.col(self._columns).gather(list(places)))
        return [encode_entry(row) for row in found.rows()] if self._columns else [encode_entry([]) for _ in places]

    def _pack(self, known: Integers, event: Integers, rows: Sequence[bytes]) -> bytes:
        ends = np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)))
        return encode_entry(Older(known.tobytes(), event.tobytes(), ends.tobytes(), b"".join(rows)))


def _parted(items: Items, first: int, second: int) -> tuple[Items, Items, Items]:
    return items[:first], items[first : first + second], items[first + second :]


def entity_starts(rows: pl.DataFrame, key: Sequence[str]) -> Integers:
    """Where each entity's rows begin, in rows sorted by key."""
    changes = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in key)
    is_first = rows.select(changes).to_series().to_numpy(writable=True)
    is_first[0] = True
    return np.flatnonzero(is_first)


def _microseconds(rows: pl.DataFrame, name: str) -> Integers:
    return rows[name].to_physical().to_numpy()


def _is_needed(known: Integers, group: Integers, needed_from: int) -> Flags:
    """Which rows may still be asked for: all but those whose successor was known by ``needed_from`` as well."""
    is_needed = np.ones(len(known), dtype=np.bool_)
    is_needed[:-1] = (known[1:] > needed_from) | (group[1:] != group[:-1])
    return is_needed


def _running_maximum(values: Integers, group: Integers) -> Integers:
    """The largest value so far within each group; groups stand together, in order."""
    falls = (values[1:] < values[:-1]) & (group[1:] == group[:-1])
    if not falls.any():
        return values
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    offset = group * len(values)
    return values[order[np.maximum.accumulate(rank + offset) - offset]]
