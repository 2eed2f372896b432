"""Whether a compiled runtime answers as the original does: on holdout rows and on values chosen to find mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from relevo.errors import Invalid, JobFailed
from relevo.runtimes.model import Column, ColumnType, Signature

#: Largest difference that counts as agreement, relative to the answer where that is beyond 1.
TOLERANCE = 1e-9
#: The same where one of the two computes in float32.
SINGLE_TOLERANCE = 1e-6
#: Holdout rows that are compared.
MAX_HOLDOUT = 2_000
#: What a runtime of ours raises for a row that it cannot answer.
_REFUSALS = (ValueError, TypeError, ArithmeticError, KeyError, IndexError, Invalid, JobFailed)

Row = list[object]
Answer = float | list[float]

#: Numbers that conversions get wrong: an epoch, neighbours that float32 cannot tell apart, and very large ones.
_NUMBERS = (0.0, -1.0, 0.1, 16_777_217.0, 1_385_856_000.5, 2.0**53 - 1, -1e12, 1e15, 1e-300, -1e30, 1e300)
_INTEGERS = (0, -1, 1, 16_777_217, 1_385_856_000, 2**53 - 1, -(10**12), 2**63 - 1)
_TEXTS = ("", " ", "relevo-unseen", "0", "nan", "None", "é" * 40)
_TIMES = (datetime(1970, 1, 1, tzinfo=UTC), datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two models compared.

    ``refused_by_both`` counts rows that neither could answer: they agree. ``disagreement`` says the first row that is
    beyond the tolerance, None when there is none.
    """

    rows: dict[str, int]
    largest_difference: float
    tolerance: float
    refused_by_both: int
    disagreement: str | None


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows to compare, by kind, with the answers of the original; None where it refuses the row, or gives no number."""

    signature: Signature
    kinds: list[str]
    rows: list[Row]
    expected: list[Answer | None]


def trial(
    ask: Callable[[list[Row]], Sequence[Answer]],
    holdout: Sequence[Row],
    signature: Signature,
    kind: str = "holdout",
) -> Trial:
    """Rows of the holdout and awkward ones, with what ``ask``, the original, answers; it may raise to refuse some.

    ``kind`` says what the first are when there is no holdout.
    """
    kinds: list[str] = []
    rows: list[Row] = []
    for kind_of_row, row in _chosen(holdout, signature, kind):
        kinds.append(kind_of_row)
        rows.append(row)
    return Trial(signature, kinds, rows, _answers(ask, rows, (Exception,)))  # a library may have errors of its own


def thinned(tried: Trial, n_rows: int) -> Trial:
    """Every so manieth row of the trial, at most ``n_rows``."""
    step = max(1, math.ceil(len(tried.rows) / n_rows))
    return Trial(tried.signature, tried.kinds[::step], tried.rows[::step], tried.expected[::step])


def check(ask: Callable[[list[Row]], Sequence[Answer]], tried: Trial, tolerance: float = TOLERANCE) -> Agreement:
    """Compares ``ask``, a compiled runtime, with the original: the rows one by one, then all in one batch."""
    singly = [answer for row in tried.rows for answer in _answers(ask, [row])]
    answered = [i for i, answer in enumerate(singly) if answer is not None]
    together = _answers(ask, [tried.rows[i] for i in answered])
    batch: list[Answer | None] = [None] * len(singly)
    for i, answer in zip(answered, together, strict=True):
        batch[i] = answer
    largest, problem, refused = 0.0, None, 0
    for i, expected in enumerate(tried.expected):
        for got in (singly[i], batch[i]):
            difference = _difference(expected, got)
            largest = max(largest, difference)
            if not difference <= tolerance and problem is None:
                shown = dict(zip((column.name for column in tried.signature.inputs), tried.rows[i], strict=True))
                problem = f"{tried.kinds[i]} row {shown}: the original answers {expected}, this one {got}"
        refused += expected is None
    counts = {kind: tried.kinds.count(kind) for kind in dict.fromkeys(tried.kinds)}
    return Agreement(counts, largest, tolerance, refused, problem)


def _difference(expected: Answer | None, got: Answer | None) -> float:
    """The largest difference of an answer's numbers; infinite when only one is there."""
    if expected is None or got is None:
        return 0.0 if expected is got else math.inf
    if isinstance(expected, list) or isinstance(got, list):
        if not (isinstance(expected, list) and isinstance(got, list)) or len(expected) != len(got):
            return math.inf
        return max(map(_difference, expected, got))
    if expected == got or (math.isnan(expected) and math.isnan(got)):
        return 0.0
    difference = abs(expected - got) / max(1.0, abs(expected))
    return math.inf if math.isnan(difference) else difference


def _answers(
    ask: Callable[[list[Row]], Sequence[Answer]],
    rows: list[Row],
    refusals: tuple[type[Exception], ...] = _REFUSALS,
) -> list[Answer | None]:
    """The answers; None for each row that is refused, found by halving, or not finite: the gateway refuses those."""
    if not rows:
        return []
    try:
        return [answer if _is_finite(answer) else None for answer in ask(rows)]
    except refusals:
        if len(rows) == 1:
            return [None]
        half = len(rows) // 2
        return _answers(ask, rows[:half], refusals) + _answers(ask, rows[half:], refusals)


def _is_finite(answer: Answer) -> bool:
    return all(map(math.isfinite, answer if isinstance(answer, list) else [answer]))


def _chosen(holdout: Sequence[Row], signature: Signature, kind: str) -> Iterator[tuple[str, Row]]:
    step = max(1, math.ceil(len(holdout) / MAX_HOLDOUT))
    chosen = holdout[::step]
    yield from ((kind, list(row)) for row in chosen)
    if not chosen:
        return
    bases = [chosen[0], chosen[len(chosen) // 2], chosen[-1]]
    for place, column in enumerate(signature.inputs):
        for awkward, value in _awkward(column, [row[place] for row in chosen]):
            yield from ((awkward, [*base[:place], value, *base[place + 1 :]]) for base in bases)
    if all(column.nullable for column in signature.inputs):
        yield "null", [None] * len(signature.inputs)
    texts = [column.type is ColumnType.TEXT for column in signature.inputs]
    if any(texts):
        for base in bases:
            yield "unseen", ["relevo-unseen" if text else value for text, value in zip(texts, base, strict=True)]


def _awkward(column: Column, seen: Sequence[Any]) -> Iterator[tuple[str, object]]:
    if column.nullable:
        yield "null", None
    known = [value for value in seen if value is not None]
    match column.type:
        case ColumnType.TEXT:
            yield from (("unseen", text) for text in _TEXTS)
            yield from (("category", text) for text in sorted(set(known))[:200])
        case ColumnType.BOOLEAN:
            yield from (("extreme", value) for value in (False, True))
        case ColumnType.TIME:
            yield from (("extreme", value) for value in (*_TIMES, *((min(known), max(known)) if known else ())))
        case ColumnType.INTEGER:
            ends = {min(known), max(known), max(known) * 10} if known else set()
            yield from (("extreme", min(max(value, -(2**63)), 2**63 - 1)) for value in sorted(ends))
            yield from (("large" if abs(value) > 1e6 else "extreme", value) for value in _INTEGERS)
        case ColumnType.FLOAT:
            spread = max(known) - min(known) if known else 0.0
            ends = {min(known), max(known), min(known) - spread, max(known) + 10 * spread} if known else set()
            yield from (("extreme", value) for value in sorted(ends))
            yield from (("large" if abs(value) > 1e6 else "extreme", value) for value in _NUMBERS)
