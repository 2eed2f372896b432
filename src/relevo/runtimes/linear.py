"""The linear runtime: a linear or logistic model with its preparation, as float64 arithmetic in plain Python.

For a row of a dozen values a loop over floats takes 2 us, where one numpy call costs as much by itself. Many rows are
answered column by column.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import add, itemgetter, mul, sub
from typing import Any

import msgspec

from relevo.errors import Invalid
from relevo.runtimes.explanation import Explanation, explanation_of
from relevo.runtimes.model import Link, Signature

#: From so many rows on they are answered column by column.
_COLUMNS_FROM = 4

#: Name of the runtime's file in a bundle.
FILE = "runtime/linear.json"

Weights = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric input: ``(x - center) / scale`` times the weight of each output.

    ``fill`` takes the place of null; None means that the model cannot answer null.
    """

    column: int
    center: float
    scale: float
    weights: Weights
    fill: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """An input whose values each have weights of their own.

    ``missing`` stands for null and ``unknown`` for a value that is not in the table; None means that the model cannot
    answer such a value.
    """

    column: int
    values: tuple[tuple[str | float, Weights], ...]
    missing: Weights | None = None
    unknown: Weights | None = None


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Scores are the intercept of each output plus what every input adds."""

    link: Link
    intercept: Weights
    numbers: tuple[Number, ...] = ()
    tables: tuple[Table, ...] = ()


#: Made once, on import: msgspec crashes when two threads read a class at the same time.
_decode = msgspec.json.Decoder(LinearModel).decode


class LinearRuntime:
    """Answers rows with a ``LinearModel``. Immutable, so any number of threads may share one."""

    def __init__(self, model: LinearModel, signature: Signature) -> None:
        self._model = model
        self._signature = signature
        self._names = [column.name for column in signature.inputs]
        self._numbers = [(n.column, n.fill, n.center, n.scale, n.weights) for n in model.numbers]
        self._tables = [(t.column, _lookup(t), t.unknown) for t in model.tables]
        # One output is the usual case: its weights as plain floats, and the arithmetic in C.
        self._take = _taker([n.column for n in model.numbers])
        # Centers are taken off first: of an epoch's seconds little would be left of the digits afterwards.
        self._centers = [n.center for n in model.numbers]
        self._slopes = [n.weights[0] / n.scale for n in model.numbers]
        self._fills = [n.fill for n in model.numbers]
        self._single_tables = [
            (column, {value: _first(weights) for value, weights in table.items()}, _first(unknown))
            for column, table, unknown in self._tables
        ]

    @classmethod
    def load(cls, content: bytes, signature: Signature) -> LinearRuntime:
        """The runtime of the file's content."""
        return cls(_decode(content), signature)

    def predict(self, rows: Sequence[Sequence[object]]) -> list[float] | list[list[float]]:
        """Answers ``(n_rows,)``, or ``(n_rows, n_classes)`` for more than two classes.

        Raises:
            Invalid: A row holds a null or a value that the model cannot answer.
        """
        if self._model.link is Link.SOFTMAX:
            return [_softmax(self._scores(row)) for row in rows]
        scores = self._by_column(rows) if len(rows) >= _COLUMNS_FROM else [self._score(row) for row in rows]
        if self._model.link is Link.LOGISTIC:
            return [_logistic(score) for score in scores]
        return scores

    def explain(self, rows: Sequence[Sequence[object]]) -> Explanation:
        """A number adds its weight times its distance from the center that the model was given; a value its weight."""
        width = len(self._names) + 1
        flat = []
        for row in rows:
            added = [[0.0] * width for _ in self._model.intercept]
            for output, intercept in enumerate(self._model.intercept):
                added[output][-1] = intercept
            for column, weights in self._added(row):
                for output, weight in enumerate(weights):
                    added[output][column] += weight
            flat.append([value for output in added for value in output])
        return explanation_of(flat, self._signature, self._model.link)

    def close(self) -> None:
        """Nothing to free."""

    def _score(self, row: Sequence[object]) -> float:
        numbers = self._take(row)
        if None in numbers:
            numbers = self._filled(numbers, row)
        total: float = sum(map(mul, map(sub, numbers, self._centers), self._slopes), self._model.intercept[0])
        for column, table, unknown in self._single_tables:
            weight = table.get(row[column], unknown)
            if weight is None:
                raise self._refusal(column, row)
            total += weight
        return total

    def _by_column(self, rows: Sequence[Sequence[Any]]) -> list[float]:
        """As ``_score``, number for number, for many rows in half the time."""
        columns = list(zip(*rows, strict=True))
        totals = [self._model.intercept[0]] * len(rows)
        for number, slope in zip(self._model.numbers, self._slopes, strict=True):
            values: Sequence[Any] = columns[number.column]
            if None in values:
                if number.fill is None:
                    raise self._refusal(number.column, rows[values.index(None)])
                values = [number.fill if value is None else value for value in values]
            center = number.center
            totals = [total + (value - center) * slope for total, value in zip(totals, values, strict=True)]
        for column, table, unknown in self._single_tables:
            weights = [table.get(value, unknown) for value in columns[column]]
            if None in weights:
                raise self._refusal(column, rows[weights.index(None)])
            totals = list(map(add, totals, weights))
        return totals

    def _filled(self, numbers: Sequence[Any], row: Sequence[object]) -> list[Any]:
        filled = [fill if value is None else value for value, fill in zip(numbers, self._fills, strict=True)]
        if None in filled:
            raise self._refusal(self._model.numbers[filled.index(None)].column, row)
        return filled

    def _scores(self, row: Sequence[object]) -> list[float]:
        totals = list(self._model.intercept)
        for _, added in self._added(row):
            totals = [total + one for total, one in zip(totals, added, strict=True)]
        return totals

    def _added(self, row: Sequence[object]) -> Iterator[tuple[int, Weights]]:
        """What each number and each table adds to the scores, with its column."""
        for column, fill, center, scale, weights in self._numbers:
            value = row[column]
            if value is None:
                if fill is None:
                    raise self._refusal(column, row)
                value = fill
            scaled: float = (value - center) / scale  # type: ignore[operator]
            yield column, tuple(scaled * weight for weight in weights)
        for column, table, unknown in self._tables:
            found = table.get(row[column], unknown)
            if found is None:
                raise self._refusal(column, row)
            yield column, found

    def _refusal(self, column: int, row: Sequence[object]) -> Invalid:
        name, value = self._names[column], row[column]
        shown = "null" if value is None else ascii(value)[:60]
        return Invalid(f"Column {name!r}: the model cannot answer {shown}.", field=name)


def _taker(columns: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Takes the values of these columns from a row."""
    if len(columns) > 1:
        return itemgetter(*columns)
    return lambda row: [row[column] for column in columns]


def _first(weights: Weights | None) -> float | None:
    return None if weights is None else weights[0]


def _lookup(table: Table) -> dict[object, Weights | None]:
    return {None: table.missing, **dict[object, Weights | None](table.values)}


def _logistic(score: float) -> float:
    """``1 / (1 + exp(-score))`` without overflow."""
    if score >= 0:
        return 1.0 / (1.0 + math.exp(-score))
    e = math.exp(score)
    return e / (1.0 + e)


def _softmax(scores: list[float]) -> list[float]:
    largest = max(scores)
    powers = [math.exp(score - largest) for score in scores]
    total = math.fsum(powers)
    return [power / total for power in powers]
