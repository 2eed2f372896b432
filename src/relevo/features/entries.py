"""What the online store keeps for one entity, and how features are read from it. Pure; light to import.

An entry is one msgpack array with the items of each view that is filled along, null where the view has no row of the
entity. The items of a view that takes latest values begin with the row that counts now: since when it is known, when it
happened, its values; then the rows before it that may still be asked for, packed (``Older``). For windows follow: since
when each row is known, whether older rows are gone, running counts and sums since the beginning, and the rows' own
values where a feature looks at each. Arrays are native int64 or float64, oldest first. So an answer is computed for the
time that is asked, and a window empties by itself when nothing new happens.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from struct import Struct
from typing import Any

import msgspec

from relevo.features.model import Aggregation, Feature, FeatureView, Value

#: What an entry holds for one view. Which item is what, the view's ``Layout`` tells.
Items = list[Any]
#: An entry, decoded: the items of each view, by its place.
Entry = list[Items | None]

#: How far before ``materialised_through`` an asked time may lie and still be answered exactly.
KEPT_BEFORE = timedelta(hours=24)

_MICROSECOND = timedelta(microseconds=1)

decode_entry = msgspec.msgpack.Decoder(list[list[Any] | None]).decode
encode_entry = msgspec.msgpack.Encoder().encode
_integer = Struct("=q").unpack_from


def decoded(value: bytes | None) -> Entry | None:
    """The entry; None when there is none."""
    return None if value is None else decode_entry(value)


class Older(msgspec.Struct, array_like=True, frozen=True):
    """Rows before the one that counts now; ``rows`` holds their values as msgpack arrays, each up to its end."""

    known: bytes
    event: bytes
    ends: bytes
    rows: bytes


_decode_older = msgspec.msgpack.Decoder(Older).decode
_decode_row = msgspec.msgpack.Decoder(list[Value]).decode


class Layout:
    """The places in the items of a view.

    Attributes:
        values: Columns whose latest values stand at ``VALUES`` and on.
        older: Where the packed older rows are, or None.
        windows: Where the times of the windows' rows are, or None; whether it is trimmed follows.
        counts_rows: Whether the first prefix counts rows.
        numbers: Columns with a prefix that counts and one that adds up, each.
        compared: Columns with an array of what minimum and maximum compare, NaN where there is nothing.
        spread: The same of what deviations are of.
        picked: Columns with the values that ``last`` takes and ``distinct`` counts, a msgpack array.
    """

    KNOWN, EVENT, VALUES = 0, 1, 2

    def __init__(self, view: FeatureView) -> None:
        self.values = _columns(view, Aggregation.LATEST)
        has_latest = any(not feature.aggregation.is_windowed for feature in view.features)
        self.older: int | None = self.VALUES + len(self.values) if has_latest else None
        after = self.older + 1 if self.older is not None else 0
        self.windows: int | None = after if view.windows else None
        self.counts_rows = any(feature.aggregation is Aggregation.COUNT for feature in view.features)
        self.numbers = _columns(view, Aggregation.SUM, Aggregation.MEAN)
        self.compared = _columns(view, Aggregation.MINIMUM, Aggregation.MAXIMUM)
        self.spread = _columns(view, Aggregation.DEVIATION)
        self.picked = _columns(view, Aggregation.LAST, Aggregation.DISTINCT)
        self.prefixes = after + 2
        self.arrays = self.prefixes + self.counts_rows + 2 * len(self.numbers)
        rows = len(self.compared) + len(self.spread) + len(self.picked)
        self.width = self.arrays + rows if view.windows else after

    def count_of(self, column: str | None) -> int:
        """Where the running count of a column's numbers is; of None: that of rows."""
        return self.prefixes if column is None else self.prefixes + self.counts_rows + 2 * self.numbers.index(column)

    def sum_of(self, column: str) -> int:
        """Where the running sum of a column is."""
        return self.count_of(column) + 1

    def array_of(self, feature: Feature) -> int:
        """Where the values of each row are that a feature looks at."""
        column = str(feature.column)
        match feature.aggregation:
            case Aggregation.MINIMUM | Aggregation.MAXIMUM:
                return self.arrays + self.compared.index(column)
            case Aggregation.DEVIATION:
                return self.arrays + len(self.compared) + self.spread.index(column)
        return self.arrays + len(self.compared) + len(self.spread) + self.picked.index(column)


class Reader:
    """How the features of one view are read from its items; worked out once.

    Attributes:
        names: The features, in the order of the view and of the answers.
        nothing: The answer where nothing is known: no key, or a view that was never filled.
        without_rows: The answer for an entity without rows. An answer is this very list exactly when there are none.
    """

    def __init__(self, view: FeatureView) -> None:
        self.view = view
        self.names = tuple(feature.name for feature in view.features)
        self.nothing: list[Value] = [feature.default for feature in view.features]
        self._defaults = [(p, each.default) for p, each in enumerate(view.features) if each.default is not None]
        layout = Layout(view)
        self._older = layout.older
        self._ttl_us = None if view.ttl is None else view.ttl // _MICROSECOND
        self._values = slice(Layout.VALUES, layout.older)
        latest = [
            (place, layout.values.index(feature.column) if feature.column else None)
            for place, feature in enumerate(view.features)
            if not feature.aggregation.is_windowed
        ]
        self._latest = latest
        self._is_plain = latest == [(place, place) for place in range(len(view.features))]
        self._known = layout.windows
        self._windows = [
            (
                over // _MICROSECOND,
                [(place, *_window(layout, each)) for place, each in enumerate(view.features) if each.over == over],
            )
            for over in view.windows
        ]
        is_plain = self._is_plain and self._ttl_us is None and self._known is None and not self._defaults
        #: Gives the features at a time (microseconds) from items, which may be used again.
        self.answer = self._answer_plainly if is_plain else self._answer
        self.without_rows = list(self.nothing)
        for _, windows in self._windows:
            for place, _, empty in windows:
                if empty is not None:
                    self.without_rows[place] = empty

    def _answer_plainly(self, items: Items | None, at: int) -> list[Value]:
        """As ``_answer``, where the values are the answer."""
        if items is not None and at >= items[0]:
            return items[self._values]
        return self._found(items, at)

    def _answer(self, items: Items | None, at: int) -> list[Value]:
        found = self._found(items, at)
        if self._defaults and found is not self.without_rows:
            for place, default in self._defaults:
                if found[place] is None:
                    found[place] = default
        return found

    def _found(self, items: Items | None, at: int) -> list[Value]:
        if items is None:
            return self.without_rows
        if self._older is None:
            return self._with_windows(items, at, None)
        if at >= items[0]:
            event, values = items[1], items[self._values]
        else:
            found = self._find_older(items, at)
            if found is None:
                return self.without_rows if self._known is None else self._with_windows(items, at, None)
            event, values = found
        if self._is_plain and self._ttl_us is None:
            return values
        age = at - event
        if self._ttl_us is not None and age > self._ttl_us:
            answer = list(self.nothing)
        elif self._is_plain:
            answer = values
        else:
            answer = list(self.nothing)
            for place, index in self._latest:
                answer[place] = age / 1e6 if index is None else values[index]
        return answer if self._known is None else self._with_windows(items, at, answer)

    def _find_older(self, items: Items, at: int) -> tuple[int, list[Value]] | None:
        """Event time and values of the row that counted at ``at``."""
        assert self._older is not None
        older = items[self._older]
        if older is None:
            return None
        if isinstance(older, bytes):  # opened once for all the rows that ask
            older = items[self._older] = _decode_older(older)
        place = bisect_right(memoryview(older.known).cast("q"), at) - 1
        if place < 0:
            return None
        ends = older.ends
        start = _integer(ends, 8 * (place - 1))[0] if place else 0
        row = memoryview(older.rows)[start : _integer(ends, 8 * place)[0]]
        return _integer(older.event, 8 * place)[0], _decode_row(row)

    def _with_windows(self, items: Items, at: int, answer: list[Value] | None) -> list[Value]:
        assert self._known is not None
        known = _integers(items, self._known)
        end = bisect_right(known, at) - 1
        is_trimmed = items[self._known + 1]
        if end < 0 and not is_trimmed and answer is None:
            return self.without_rows
        answer = list(self.nothing) if answer is None else answer
        for over_us, windows in self._windows:
            start = bisect_right(known, at - over_us, 0, end + 1) - 1
            if start < 0 and is_trimmed:
                continue
            for place, read, empty in windows:
                answer[place] = empty if start == end else read(items, start, end)
        return answer


def encode_key(columns: Sequence[str], row: Mapping[str, object]) -> bytes | None:
    """The row's entity as bytes; None when a part of it is null or missing.

    Integers, text and truth values of equal value have equal bytes.
    """
    if len(columns) == 1:
        value = row.get(columns[0])
        return None if value is None else encode_entry((value,))
    values = [row.get(column) for column in columns]
    return None if None in values else encode_entry(values)


Window = Callable[[Items, int, int], Value]


def _window(layout: Layout, feature: Feature) -> tuple[Window, Value]:
    """Reads a feature from the rows after index ``start`` up to ``end``, and what it is when there are none."""
    if not feature.aggregation.is_running:
        return _window_of_values(layout.array_of(feature), feature.aggregation)
    count = layout.count_of(feature.column)

    def count_rows(items: Items, start: int, end: int) -> int:
        counts = _integers(items, count)
        return counts[end] - counts[start] if start >= 0 else counts[end]

    if feature.column is None:
        return count_rows, 0
    total = layout.sum_of(feature.column)

    def add_up(items: Items, start: int, end: int) -> float:
        if not count_rows(items, start, end):
            return 0.0
        sums = _floats(items, total)
        return sums[end] - sums[start] if start >= 0 else sums[end]

    def average(items: Items, start: int, end: int) -> float | None:
        found = count_rows(items, start, end)
        if not found:
            return None
        sums = _floats(items, total)
        return (sums[end] - sums[start] if start >= 0 else sums[end]) / found

    return (average, None) if feature.aggregation is Aggregation.MEAN else (add_up, 0.0)


def _window_of_values(array: int, aggregation: Aggregation) -> tuple[Window, Value]:
    """As ``_window``, where each row of the window is looked at."""

    def numbers(items: Items, start: int, end: int) -> list[float]:
        return [each for each in _floats(items, array)[start + 1 : end + 1].tolist() if each == each]

    def values(items: Items, start: int, end: int) -> list[Value]:
        every = items[array]
        if isinstance(every, bytes):  # opened once for all the rows that ask
            every = items[array] = _decode_row(every)
        return [each for each in every[start + 1 : end + 1] if each is not None]

    match aggregation:
        case Aggregation.MINIMUM:
            return lambda items, start, end: min(numbers(items, start, end), default=None), None
        case Aggregation.MAXIMUM:
            return lambda items, start, end: max(numbers(items, start, end), default=None), None
        case Aggregation.DEVIATION:
            return lambda items, start, end: _deviation(numbers(items, start, end)), None
        case Aggregation.DISTINCT:
            return lambda items, start, end: len(set(values(items, start, end))), 0
        case Aggregation.LAST:
            return lambda items, start, end: next(iter(values(items, start, end)[-1:]), None), None
    raise AssertionError(aggregation)


def _deviation(numbers: list[float]) -> float | None:
    """The sample standard deviation in two passes, as ``windows.deviations``; None below two values."""
    n = len(numbers)
    if n < 2:
        return None
    try:
        mean = math.fsum(numbers) / n
        inside = [each - mean for each in numbers]
        squares = math.fsum(each * each for each in inside) - math.fsum(inside) ** 2 / n
    except OverflowError:
        return None
    found = math.sqrt(max(squares, 0.0) / (n - 1))
    return found if math.isfinite(found) else None


def _integers(items: Items, place: int) -> memoryview[int]:
    """The array at a place of the items, opened there once for all that ask."""
    if isinstance(items[place], bytes):
        items[place] = memoryview(items[place]).cast("q")
    array: memoryview[int] = items[place]
    return array


def _floats(items: Items, place: int) -> memoryview[float]:
    """As ``_integers``."""
    if isinstance(items[place], bytes):
        items[place] = memoryview(items[place]).cast("d")
    array: memoryview[float] = items[place]
    return array


def _columns(view: FeatureView, *aggregations: Aggregation) -> tuple[str, ...]:
    features = (feature for feature in view.features if feature.aggregation in aggregations)
    return tuple(dict.fromkeys(feature.column for feature in features if feature.column))
