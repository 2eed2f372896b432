"""The words that a team's package declares request-time transforms with. Light to import.

    transforms = OnRequest({
        "speed": value("distance") / value("airtime"),
        "is_weekend": value("weekday") >= 6,
        "log_delay": log1p(maximum_of(value("departure_delay_1h"), 0)),
        "hour_in_new_york": asked_at.in_zone("America/New_York").hour,
    })

Each becomes an input of the model. It is computed from the inputs and features of a request, or from other transforms:
for whole columns when a training set is built, and for one row in the gateway. What the caller sends wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from relevo.errors import Invalid
from relevo.features.expressions import Node, Operation, Transform
from relevo.features.ordering import in_order

__all__ = [
    "Expression",
    "OnRequest",
    "asked_at",
    "cos",
    "exp",
    "floor",
    "log",
    "log1p",
    "maximum_of",
    "minimum_of",
    "sin",
    "sqrt",
    "value",
    "where",
]


class OnRequest:
    """Transforms by name, in an order in which each follows those that it reads.

    Raises:
        Invalid: A name is no identifier, an expression is none of this language or does not fit together, or transforms
            read each other in a circle.
    """

    def __init__(self, transforms: Mapping[str, Expression]) -> None:
        if not transforms:
            raise Invalid("OnRequest: expected at least one transform, got none")
        made = []
        for name, expression in transforms.items():
            if not isinstance(expression, Expression):
                raise Invalid(
                    f"transform {name}: expected an expression such as value('a') / value('b'), got {expression!r}",
                    hint="Functions and Polars expressions cannot be evaluated for one request in the gateway.",
                )
            made.append(Transform(name, expression.node))
        self.transforms: tuple[Transform, ...] = in_order(made, "transforms")


class Expression:
    """Something that has a value for each request. Operators and the functions of this module make new ones."""

    __slots__ = ("node",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, node: Node) -> None:
        self.node = node

    def is_null(self) -> Expression:
        """Whether it is null."""
        return _made(Operation.IS_NULL, self)

    def fill_null(self, value: Any) -> Expression:
        """It, or ``value`` where it is null."""
        return _made(Operation.FILL_NULL, self, value)

    def is_in(self, values: Iterable[float | int | str]) -> Expression:
        """Whether it is one of ``values``; null when it is null."""
        if isinstance(values, str):
            raise Invalid(f"is_in expects a list of numbers or text, got {values!r}")
        return _made(Operation.IS_IN, self, *values)

    def __add__(self, other: Any) -> Expression:
        return _made(Operation.ADD, self, other)

    def __radd__(self, other: Any) -> Expression:
        return _made(Operation.ADD, other, self)

    def __sub__(self, other: Any) -> Expression:
        return _made(Operation.SUBTRACT, self, other)

    def __rsub__(self, other: Any) -> Expression:
        return _made(Operation.SUBTRACT, other, self)

    def __mul__(self, other: Any) -> Expression:
        return _made(Operation.MULTIPLY, self, other)

    def __rmul__(self, other: Any) -> Expression:
        return _made(Operation.MULTIPLY, other, self)

    def __truediv__(self, other: Any) -> Expression:
        return _made(Operation.DIVIDE, self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return _made(Operation.DIVIDE, other, self)

    def __neg__(self) -> Expression:
        return _made(Operation.NEGATIVE, self)

    def __abs__(self) -> Expression:
        return _made(Operation.ABSOLUTE, self)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return _made(Operation.EQUAL, self, other)

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return _made(Operation.DIFFERENT, self, other)

    def __lt__(self, other: Any) -> Expression:
        return _made(Operation.LESS, self, other)

    def __le__(self, other: Any) -> Expression:
        return _made(Operation.LESS_OR_EQUAL, self, other)

    def __gt__(self, other: Any) -> Expression:
        return _made(Operation.GREATER, self, other)

    def __ge__(self, other: Any) -> Expression:
        return _made(Operation.GREATER_OR_EQUAL, self, other)

    def __and__(self, other: Any) -> Expression:
        return _made(Operation.AND, self, other)

    def __rand__(self, other: Any) -> Expression:
        return _made(Operation.AND, other, self)

    def __or__(self, other: Any) -> Expression:
        return _made(Operation.OR, self, other)

    def __ror__(self, other: Any) -> Expression:
        return _made(Operation.OR, other, self)

    def __invert__(self) -> Expression:
        return _made(Operation.NOT, self)

    def __bool__(self) -> NoReturn:
        raise Invalid(
            f"{self.node} has no truth value before there is a request",
            hint="Write & for and, | for or, ~ for not (in parentheses), and where(condition, a, b) for if.",
        )

    def __float__(self) -> NoReturn:
        raise Invalid(
            f"{self.node} is no number before there is a request",
            hint="Use log, log1p, exp, sqrt, floor, sin and cos of relevo.features.request.",
        )

    def __iter__(self) -> NoReturn:
        raise Invalid(f"{self.node} is one value, and has no parts")

    def __pow__(self, other: Any) -> NoReturn:
        raise _outside("a power", "Write a product, sqrt(x), or exp(y * log(x)).")

    def __rpow__(self, other: Any) -> NoReturn:
        raise _outside("a power", "Write exp(y * log(x)).")

    def __mod__(self, other: Any) -> NoReturn:
        raise _outside("a remainder", "Write a - floor(a / b) * b.")

    def __floordiv__(self, other: Any) -> NoReturn:
        raise _outside("a whole division", "Write floor(a / b).")

    def __array_ufunc__(self, function: Any, *_: Any, **__: Any) -> NoReturn:
        raise _outside(f"NumPy's {function.__name__}", "Use the functions of relevo.features.request.")

    def __repr__(self) -> str:
        return f"Expression({self.node})"


@dataclass(frozen=True, slots=True)
class AskedAt:
    """The asked time of a request, in UTC or the zone of ``in_zone``."""

    zone: str = "UTC"

    def in_zone(self, name: str) -> AskedAt:
        """The same moment by the clocks of a zone such as ``America/New_York``."""
        return AskedAt(name)

    @property
    def minute(self) -> Expression:
        """0 to 59."""
        return Expression(Node(Operation.MINUTE, argument=self.zone))

    @property
    def hour(self) -> Expression:
        """0 to 23."""
        return Expression(Node(Operation.HOUR, argument=self.zone))

    @property
    def weekday(self) -> Expression:
        """1, Monday, to 7, Sunday."""
        return Expression(Node(Operation.WEEKDAY, argument=self.zone))

    @property
    def month(self) -> Expression:
        """1 to 12."""
        return Expression(Node(Operation.MONTH, argument=self.zone))


#: When the request is asked: the column of ``ask.at``, or the endpoint's clock.
asked_at = AskedAt()


def value(name: str) -> Expression:
    """An input of the contract, a feature of a view, or another transform."""
    return Expression(Node(Operation.VALUE, argument=name))


def where(condition: Any, then: Any, otherwise: Any) -> Expression:
    """``then`` where the condition holds, ``otherwise`` where it does not; null where it is null."""
    return _made(Operation.WHERE, condition, then, otherwise)


def minimum_of(first: Any, second: Any) -> Expression:
    """The lesser of two numbers; null when one is null."""
    return _made(Operation.MINIMUM, first, second)


def maximum_of(first: Any, second: Any) -> Expression:
    """The greater of two numbers; null when one is null."""
    return _made(Operation.MAXIMUM, first, second)


def log(x: Any) -> Expression:
    """The natural logarithm; null for zero and below."""
    return _made(Operation.LOG, x)


def log1p(x: Any) -> Expression:
    """The natural logarithm of 1 + x, exact for small x; null for -1 and below."""
    return _made(Operation.LOG1P, x)


def exp(x: Any) -> Expression:
    """E to the power of x; null where that is beyond a float64."""
    return _made(Operation.EXP, x)


def sqrt(x: Any) -> Expression:
    """The square root; null for a negative number."""
    return _made(Operation.SQRT, x)


def floor(x: Any) -> Expression:
    """The greatest whole number that is not above x."""
    return _made(Operation.FLOOR, x)


def sin(x: Any) -> Expression:
    """The sine of x radians."""
    return _made(Operation.SIN, x)


def cos(x: Any) -> Expression:
    """The cosine of x radians."""
    return _made(Operation.COS, x)


def _made(operation: Operation, *inputs: object) -> Expression:
    return Expression(Node(operation, tuple(map(_node, inputs))))


def _node(operand: object) -> Node:
    match operand:
        case Expression():
            return operand.node
        case bool() | str() | None:
            return Node(Operation.LITERAL, argument=operand)
        case int() | float():
            return Node(Operation.LITERAL, argument=float(operand))
    if isinstance(operand, AskedAt):
        raise Invalid("asked_at is a time; take a part of it, such as asked_at.hour")
    raise Invalid(
        f"expected an expression, a number, text or a truth value, got {operand!r}",
        hint="A request-time transform is made of value(...), operators and the functions of relevo.features.request.",
    )


def _outside(what: str, instead: str) -> Invalid:
    return Invalid(f"a request-time transform cannot have {what}", hint=instead)
