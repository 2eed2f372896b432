"""Request-time transforms for one row: closures made once from the expressions. Light to import: the gateway's part.

``column_values`` computes the same for whole columns; ``expressions`` says what both mean.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from relevo.features.expressions import ASKED, Kind, Node, Operation, Transform, kind_of, kinds_of

#: Gives a value from a row's values and its asked time.
Evaluate = Callable[[Sequence[Any], datetime], Any]

_NUMBERS: dict[Operation, Callable[..., float]] = {
    Operation.ADD: operator.add,
    Operation.SUBTRACT: operator.sub,
    Operation.MULTIPLY: operator.mul,
    Operation.DIVIDE: operator.truediv,
    Operation.MINIMUM: min,
    Operation.MAXIMUM: max,
    Operation.NEGATIVE: operator.neg,
    Operation.ABSOLUTE: abs,
    Operation.LOG: math.log,
    Operation.LOG1P: math.log1p,
    Operation.EXP: math.exp,
    Operation.SQRT: math.sqrt,
    Operation.FLOOR: lambda x: float(math.floor(x)),
    Operation.SIN: math.sin,
    Operation.COS: math.cos,
}
_COMPARISONS: dict[Operation, Callable[[Any, Any], bool]] = {
    Operation.EQUAL: operator.eq,
    Operation.DIFFERENT: operator.ne,
    Operation.LESS: operator.lt,
    Operation.LESS_OR_EQUAL: operator.le,
    Operation.GREATER: operator.gt,
    Operation.GREATER_OR_EQUAL: operator.ge,
}
_PARTS: dict[Operation, Callable[[datetime], int]] = {
    Operation.MINUTE: lambda at: at.minute,
    Operation.HOUR: lambda at: at.hour,
    Operation.WEEKDAY: datetime.isoweekday,
    Operation.MONTH: lambda at: at.month,
}


class RowTransforms:
    """The transforms of a version, ready for rows.

    Args:
        transforms: Each after those that it reads.
        places: Where each input, feature and transform stands in a row.
        kinds: What inputs and features hold.

    Raises:
        Invalid: A transform reads what has no place, or does not fit what it reads.
    """

    def __init__(self, transforms: tuple[Transform, ...], places: Mapping[str, int], kinds: Mapping[str, Kind]) -> None:
        self.names = frozenset(transform.name for transform in transforms)
        every = {**kinds, **kinds_of(transforms, kinds)}
        self._steps = [
            (transform.name, places[transform.name], _number(transform.expression, places, every))
            if every[transform.name] is Kind.NUMBER
            else (transform.name, places[transform.name], _evaluate(transform.expression, places, every))
            for transform in transforms
        ]

    def fill(self, rows: Sequence[list[Any]], at: Sequence[datetime], sent: frozenset[str]) -> None:
        """Put the transforms that the caller did not send into ``rows``; ``at`` is the asked time of each."""
        steps = [(place, evaluate) for name, place, evaluate in self._steps if name not in sent]
        for row, moment in zip(rows, at, strict=True):
            for place, evaluate in steps:
                row[place] = evaluate(row, moment)


def _evaluate(node: Node, places: Mapping[str, int], kinds: Mapping[str, Kind]) -> Evaluate:
    """The value of ``node`` as its own kind."""
    operation = node.operation
    if operation is Operation.VALUE:
        place, is_number = places[str(node.argument)], kinds[str(node.argument)] is Kind.NUMBER
        return _finite_value(place) if is_number else lambda row, at: row[place]
    if operation is Operation.LITERAL:
        literal = node.argument
        return lambda row, at: literal
    if operation in ASKED:
        return _part(_PARTS[operation], str(node.argument))
    if operation in _NUMBERS:
        return _arithmetic(_NUMBERS[operation], [_number(each, places, kinds) for each in node.inputs])
    if operation is Operation.IS_NULL:
        inner = _evaluate(node.inputs[0], places, kinds)
        return lambda row, at: inner(row, at) is None
    if operation is Operation.IS_IN:
        return _is_in(node, places, kinds)
    if operation in _COMPARISONS:
        return _comparison(_COMPARISONS[operation], *_alike(node.inputs, places, kinds))
    if operation in (Operation.AND, Operation.OR, Operation.NOT):
        return _logic(operation, [_evaluate(each, places, kinds) for each in node.inputs])
    if operation is Operation.WHERE:
        return _where(_evaluate(node.inputs[0], places, kinds), *_alike(node.inputs[1:], places, kinds))
    return _fill_null(*_alike(node.inputs, places, kinds))


def _number(node: Node, places: Mapping[str, int], kinds: Mapping[str, Kind]) -> Evaluate:
    """The value of ``node`` as a number: a truth value counts as 1 or 0."""
    inner = _evaluate(node, places, kinds)
    if kind_of(node, kinds) is not Kind.TRUTH:
        return inner

    def number(row: Sequence[Any], at: datetime) -> float | None:
        found = inner(row, at)
        return None if found is None else float(found)

    return number


def _alike(nodes: Sequence[Node], places: Mapping[str, int], kinds: Mapping[str, Kind]) -> list[Evaluate]:
    """The values of several nodes, as numbers when one of them is a number."""
    has_number = any(kind_of(node, kinds) is Kind.NUMBER for node in nodes)
    return [(_number if has_number else _evaluate)(node, places, kinds) for node in nodes]


def _finite_value(place: int) -> Evaluate:
    def value(row: Sequence[Any], at: datetime) -> float | None:
        found = row[place]
        if found is None:
            return None
        number = float(found)
        return number if math.isfinite(number) else None

    return value


def _part(part: Callable[[datetime], int], name: str) -> Evaluate:
    zone = ZoneInfo(name)
    return lambda row, at: float(part(at.astimezone(zone)))


def _arithmetic(function: Callable[..., float], inputs: list[Evaluate]) -> Evaluate:
    first = inputs[0]
    second = inputs[1] if len(inputs) == 2 else None

    def computed(row: Sequence[Any], at: datetime) -> float | None:
        a = first(row, at)
        if a is None:
            return None
        try:
            if second is None:
                found = function(a)
            else:
                b = second(row, at)
                if b is None:
                    return None
                found = function(a, b)
        except (ArithmeticError, ValueError):
            return None
        return found if math.isfinite(found) else None

    return computed


def _comparison(function: Callable[[Any, Any], bool], first: Evaluate, second: Evaluate) -> Evaluate:
    def compared(row: Sequence[Any], at: datetime) -> bool | None:
        a, b = first(row, at), second(row, at)
        return None if a is None or b is None else function(a, b)

    return compared


def _is_in(node: Node, places: Mapping[str, int], kinds: Mapping[str, Kind]) -> Evaluate:
    looked_for = _alike(node.inputs, places, kinds)[0]
    values = frozenset(each.argument for each in node.inputs[1:])

    def contained(row: Sequence[Any], at: datetime) -> bool | None:
        found = looked_for(row, at)
        return None if found is None else found in values

    return contained


def _logic(operation: Operation, inputs: list[Evaluate]) -> Evaluate:
    """Of three values: an ``and`` with a false side is false, whatever the other; an ``or`` with a true one is true."""
    first = inputs[0]
    if operation is Operation.NOT:

        def turned(row: Sequence[Any], at: datetime) -> bool | None:
            found = first(row, at)
            return None if found is None else not found

        return turned
    second = inputs[1]
    decides: bool = operation is Operation.OR

    def joined(row: Sequence[Any], at: datetime) -> bool | None:
        a: bool | None = first(row, at)
        if a is decides:
            return decides
        b: bool | None = second(row, at)
        if b is decides:
            return decides
        return None if a is None or b is None else not decides

    return joined


def _where(condition: Evaluate, then: Evaluate, otherwise: Evaluate) -> Evaluate:
    def chosen(row: Sequence[Any], at: datetime) -> Any:
        holds = condition(row, at)
        return None if holds is None else then(row, at) if holds else otherwise(row, at)

    return chosen


def _fill_null(first: Evaluate, second: Evaluate) -> Evaluate:
    def filled(row: Sequence[Any], at: datetime) -> Any:
        found = first(row, at)
        return second(row, at) if found is None else found

    return filled
