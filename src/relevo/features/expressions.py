"""Request-time transforms as data: a small language of expressions over the inputs of one request. Light to import.

A node says an operation and what it works on. It is kept as JSON, and evaluated for whole columns (``column_values``)
and for one row (``row_values``) with the same meaning:

- A number is a float64 that is finite, or null: what is not finite on the way in or in between (a division by zero, the
  logarithm of a negative number, an overflow) is null. A truth value counts as 1 or 0 where a number is wanted.
- Null in, null out: also for comparisons, ``is_in``, the least and greatest of two, and a ``where`` whose condition is
  null. Only ``is_null``, ``fill_null``, and ``and`` and ``or`` that the other side decides give a value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from zoneinfo import ZoneInfo

from relevo.errors import Invalid, nearest

#: Deepest nesting of operations.
MAX_DEPTH = 40


class Kind(StrEnum):
    """What an expression gives."""

    NUMBER = "number"
    TEXT = "text"
    TRUTH = "truth value"


class Operation(StrEnum):
    """What a node does."""

    VALUE = "value"
    LITERAL = "literal"
    ADD = "add"
    SUBTRACT = "subtract"
    MULTIPLY = "multiply"
    DIVIDE = "divide"
    NEGATIVE = "negative"
    ABSOLUTE = "absolute"
    LOG = "log"
    LOG1P = "log1p"
    EXP = "exp"
    SQRT = "sqrt"
    FLOOR = "floor"
    SIN = "sin"
    COS = "cos"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    EQUAL = "equal"
    DIFFERENT = "different"
    LESS = "less"
    LESS_OR_EQUAL = "less_or_equal"
    GREATER = "greater"
    GREATER_OR_EQUAL = "greater_or_equal"
    IS_IN = "is_in"
    AND = "and"
    OR = "or"
    NOT = "not"
    WHERE = "where"
    IS_NULL = "is_null"
    FILL_NULL = "fill_null"
    MINUTE = "minute"
    HOUR = "hour"
    WEEKDAY = "weekday"
    MONTH = "month"


ONE_NUMBER = frozenset(
    {
        Operation.NEGATIVE,
        Operation.ABSOLUTE,
        Operation.LOG,
        Operation.LOG1P,
        Operation.EXP,
        Operation.SQRT,
        Operation.FLOOR,
        Operation.SIN,
        Operation.COS,
    }
)
TWO_NUMBERS = frozenset(
    {
        Operation.ADD,
        Operation.SUBTRACT,
        Operation.MULTIPLY,
        Operation.DIVIDE,
        Operation.MINIMUM,
        Operation.MAXIMUM,
    }
)
ORDERINGS = frozenset({Operation.LESS, Operation.LESS_OR_EQUAL, Operation.GREATER, Operation.GREATER_OR_EQUAL})
ASKED = frozenset({Operation.MINUTE, Operation.HOUR, Operation.WEEKDAY, Operation.MONTH})

_COUNTS = {
    **dict.fromkeys(ONE_NUMBER | {Operation.NOT, Operation.IS_NULL}, 1),
    **dict.fromkeys(
        TWO_NUMBERS
        | ORDERINGS
        | {Operation.EQUAL, Operation.DIFFERENT, Operation.AND, Operation.OR, Operation.FILL_NULL},
        2,
    ),
    **dict.fromkeys(ASKED | {Operation.VALUE, Operation.LITERAL}, 0),
    Operation.WHERE: 3,
}


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    ``argument`` is the name that ``VALUE`` reads, the value of a ``LITERAL``, and the time zone of a part of the asked
    time; None elsewhere. ``IS_IN`` looks for its first input among the others, which are literals.
    """

    operation: Operation
    inputs: tuple[Node, ...] = ()
    argument: float | str | bool | None = None

    def __post_init__(self) -> None:
        wanted = _COUNTS.get(self.operation)
        if wanted is not None and len(self.inputs) != wanted:
            raise Invalid(f"{self.operation} works on {wanted} values, got {len(self.inputs)}")
        if self.operation is Operation.LITERAL:
            if isinstance(self.argument, float) and not math.isfinite(self.argument):
                raise Invalid(f"expected a finite number, got {self.argument}")
        elif self.operation is Operation.VALUE:
            if not isinstance(self.argument, str) or not self.argument:
                raise Invalid(f"expected the name of an input, a feature or a transform, got {self.argument!r}")
        elif self.operation in ASKED:
            _require_zone(self.argument)
        elif self.operation is Operation.IS_IN:
            given = self.inputs[1:]
            if not given or any(node.operation is not Operation.LITERAL or node.argument is None for node in given):
                raise Invalid("is_in expects a list of numbers or text")

    @property
    def reads(self) -> tuple[str, ...]:
        """The names that it reads, each once."""
        return tuple(dict.fromkeys(str(node.argument) for node in _nodes(self) if node.operation is Operation.VALUE))

    @property
    def reads_asked_time(self) -> bool:
        """Whether a part of the asked time is in it."""
        return any(node.operation in ASKED for node in _nodes(self))

    def __str__(self) -> str:
        if self.operation is Operation.VALUE:
            return str(self.argument)
        if self.operation is Operation.LITERAL:
            return "null" if self.argument is None else repr(self.argument)
        if self.operation in ASKED:
            return f"asked_at.{self.operation}({self.argument})"
        return f"{self.operation}({', '.join(map(str, self.inputs))})"


@dataclass(frozen=True, slots=True)
class Transform:
    """An input of the model that is computed from other values of the same request."""

    name: str
    expression: Node

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise Invalid(f"transform: expected a name of letters, digits and underscores, got {self.name!r}")
        if _depth(self.expression) > MAX_DEPTH:
            raise Invalid(f"transform {self.name}: expected at most {MAX_DEPTH} nested operations")
        try:
            kind_of(self.expression, None)
        except Invalid as error:
            raise Invalid(f"transform {self.name}: {error.message}") from None

    @property
    def reads(self) -> tuple[str, ...]:
        """The inputs, features and transforms that it reads."""
        return self.expression.reads


def kinds_of(transforms: tuple[Transform, ...], known: Mapping[str, Kind]) -> dict[str, Kind]:
    """What each transform gives, by its name.

    Args:
        transforms: Each after those that it reads.
        known: What inputs and features hold.

    Raises:
        Invalid: A transform reads what is not there, or an operation does not take what it is given.
    """
    kinds = dict(known)
    for transform in transforms:
        try:
            kind = kind_of(transform.expression, kinds)
        except Invalid as error:
            raise Invalid(f"transform {transform.name}: {error.message}", hint=error.hint) from None
        if kind is None:
            raise Invalid(f"transform {transform.name} is null for every request")
        kinds[transform.name] = kind
    return {transform.name: kinds[transform.name] for transform in transforms}


def kind_of(node: Node, known: Mapping[str, Kind] | None) -> Kind | None:
    """What the expression gives; None where nothing says it: a null, or a name while ``known`` is None.

    Raises:
        Invalid: It reads what is not ``known``, or an operation does not take what it is given.
    """
    kinds = [kind_of(each, known) for each in node.inputs]
    operation = node.operation
    if operation is Operation.VALUE:
        return _known(str(node.argument), known)
    if operation is Operation.LITERAL:
        return _literal(node.argument)
    if operation in ASKED:
        return Kind.NUMBER
    if operation in ONE_NUMBER | TWO_NUMBERS | ORDERINGS:
        _require(node, kinds, Kind.NUMBER, Kind.TRUTH)
        return Kind.TRUTH if operation in ORDERINGS else Kind.NUMBER
    if operation in (Operation.AND, Operation.OR, Operation.NOT):
        _require(node, kinds, Kind.TRUTH)
        return Kind.TRUTH
    if operation in (Operation.EQUAL, Operation.DIFFERENT, Operation.IS_IN):
        _common(node, kinds)
        return Kind.TRUTH
    if operation is Operation.IS_NULL:
        return Kind.TRUTH
    if operation is Operation.WHERE:
        _require(node, kinds[:1], Kind.TRUTH)
        return _common(node, kinds[1:])
    return _common(node, kinds)  # FILL_NULL


def _known(name: str, known: Mapping[str, Kind] | None) -> Kind | None:
    if known is None:
        return None
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
        raise Invalid(f"there is no input, feature or transform {name!r} that a request has as a value; {hint}")
    return known[name]


def _literal(value: float | str | bool | None) -> Kind | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return Kind.TRUTH
    return Kind.TEXT if isinstance(value, str) else Kind.NUMBER


def _require(node: Node, kinds: list[Kind | None], *allowed: Kind) -> None:
    for kind in kinds:
        if kind is not None and kind not in allowed:
            raise Invalid(f"{node.operation} expects a {allowed[0]}, got a {kind} in {node}")


def _common(node: Node, kinds: list[Kind | None]) -> Kind | None:
    """The one kind of them all, a truth value beside numbers being a number."""
    different = {kind for kind in kinds if kind is not None}
    if Kind.TEXT in different and len(different) > 1:
        other = next(kind for kind in different if kind is not Kind.TEXT)
        raise Invalid(f"{node.operation} expects values of one kind, got text and a {other} in {node}")
    if Kind.NUMBER in different:
        return Kind.NUMBER
    return next(iter(different), None)


def _require_zone(name: object) -> None:
    try:
        ZoneInfo(str(name))
    except (KeyError, ValueError, OSError):
        raise Invalid(f"there is no time zone {name!r}", hint='Expected a name such as "America/New_York".') from None


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for each in node.inputs:
        yield from _nodes(each)


def _depth(node: Node) -> int:
    return 1 + max(map(_depth, node.inputs), default=0)
