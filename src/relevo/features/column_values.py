"""Request-time transforms for whole columns, as Polars expressions: what training sees. For child processes.

``row_values`` computes the same for one row; ``expressions`` says what both mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from relevo.errors import Invalid
from relevo.features.expressions import ASKED, Kind, Node, Operation, Transform, kind_of, kinds_of

_NUMBERS: dict[Operation, Callable[..., pl.Expr]] = {
    Operation.ADD: lambda a, b: a + b,
    Operation.SUBTRACT: lambda a, b: a - b,
    Operation.MULTIPLY: lambda a, b: a * b,
    Operation.DIVIDE: lambda a, b: a / b,
    # Polars' own leave nulls out.
    Operation.MINIMUM: lambda a, b: pl.when(b < a).then(b).otherwise(a + b * 0),
    Operation.MAXIMUM: lambda a, b: pl.when(b > a).then(b).otherwise(a + b * 0),
    Operation.NEGATIVE: lambda a: -a,
    Operation.ABSOLUTE: lambda a: a.abs(),
    Operation.LOG: lambda a: a.log(),
    Operation.LOG1P: lambda a: a.log1p(),
    Operation.EXP: lambda a: a.exp(),
    Operation.SQRT: lambda a: a.sqrt(),
    Operation.FLOOR: lambda a: a.floor(),
    Operation.SIN: lambda a: a.sin(),
    Operation.COS: lambda a: a.cos(),
}
_COMPARISONS: dict[Operation, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    Operation.EQUAL: lambda a, b: a == b,
    Operation.DIFFERENT: lambda a, b: a != b,
    Operation.LESS: lambda a, b: a < b,
    Operation.LESS_OR_EQUAL: lambda a, b: a <= b,
    Operation.GREATER: lambda a, b: a > b,
    Operation.GREATER_OR_EQUAL: lambda a, b: a >= b,
}
_PARTS: dict[Operation, Callable[[pl.Expr], pl.Expr]] = {
    Operation.MINUTE: lambda at: at.dt.minute(),
    Operation.HOUR: lambda at: at.dt.hour(),
    Operation.WEEKDAY: lambda at: at.dt.weekday(),
    Operation.MONTH: lambda at: at.dt.month(),
}
_TYPES = {Kind.NUMBER: pl.Float64, Kind.TEXT: pl.String, Kind.TRUTH: pl.Boolean}


def with_transforms(frame: pl.DataFrame, transforms: tuple[Transform, ...], at: str | None) -> pl.DataFrame:
    """``frame`` with the transforms as new columns; those that are columns already stay as they are.

    Args:
        frame: Inputs and features.
        transforms: Each after those that it reads.
        at: The column of the asked time, aware; None when there is none.

    Raises:
        Invalid: A transform reads what is not there, or does not fit what it reads.
    """
    for transform in transforms:
        if transform.expression.reads_asked_time and at is None:
            raise Invalid(f"transform {transform.name} needs the asked time, and the contract has no ask.at")
    kinds = {name: kind for name, each in frame.schema.items() if (kind := _kind(each)) is not None}
    kinds |= kinds_of(transforms, kinds)
    for transform in transforms:
        if transform.name not in frame.columns:
            column = _as(kinds[transform.name], transform.expression, kinds, at).cast(_TYPES[kinds[transform.name]])
            frame = frame.with_columns(column.alias(transform.name))
    return frame


def _kind(kind: pl.DataType) -> Kind | None:
    if kind.is_numeric():
        return Kind.NUMBER
    if kind == pl.Boolean:
        return Kind.TRUTH
    return Kind.TEXT if kind == pl.String or isinstance(kind, (pl.Categorical, pl.Enum)) else None


def _evaluated(node: Node, kinds: Mapping[str, Kind], at: str | None) -> pl.Expr:
    """The value of ``node`` as its own kind."""
    operation = node.operation
    if operation is Operation.VALUE:
        name = str(node.argument)
        column = pl.col(name).cast(_TYPES[kinds[name]])
        return _finite(column) if kinds[name] is Kind.NUMBER else column
    if operation is Operation.LITERAL:
        return pl.lit(node.argument)
    if operation in ASKED:
        return _PARTS[operation](pl.col(str(at)).dt.convert_time_zone(str(node.argument))).cast(pl.Float64)
    if operation in _NUMBERS:
        return _finite(_NUMBERS[operation](*(_as(Kind.NUMBER, each, kinds, at) for each in node.inputs)))
    if operation is Operation.IS_NULL:
        return _evaluated(node.inputs[0], kinds, at).is_null()
    if operation is Operation.IS_IN:
        first = _alike(node.inputs, kinds, at)[0]
        return first.is_in([each.argument for each in node.inputs[1:]])
    if operation in _COMPARISONS:
        return _COMPARISONS[operation](*_alike(node.inputs, kinds, at))
    if operation in (Operation.AND, Operation.OR, Operation.NOT):
        sides = [_as(Kind.TRUTH, each, kinds, at) for each in node.inputs]
        if operation is Operation.NOT:
            return ~sides[0]
        return sides[0] & sides[1] if operation is Operation.AND else sides[0] | sides[1]
    if operation is Operation.WHERE:
        condition = _as(Kind.TRUTH, node.inputs[0], kinds, at)
        then, otherwise = _alike(node.inputs[1:], kinds, at)
        return pl.when(condition).then(then).when(~condition).then(otherwise)
    first, second = _alike(node.inputs, kinds, at)  # FILL_NULL
    return pl.coalesce(first, second)


def _as(kind: Kind, node: Node, kinds: Mapping[str, Kind], at: str | None) -> pl.Expr:
    """The value of ``node`` as ``kind``: a truth value counts as 1 or 0, and a null has every kind."""
    expression = _evaluated(node, kinds, at)
    return expression if kind_of(node, kinds) is kind else expression.cast(_TYPES[kind])


def _alike(nodes: tuple[Node, ...], kinds: Mapping[str, Kind], at: str | None) -> list[pl.Expr]:
    """The values of several nodes in the one kind that they have together."""
    own = [kind_of(node, kinds) for node in nodes]
    shared = Kind.NUMBER if Kind.NUMBER in own else next((kind for kind in own if kind is not None), Kind.NUMBER)
    return [_as(shared, node, kinds, at) for node in nodes]


def _finite(number: pl.Expr) -> pl.Expr:
    return pl.when(number.is_finite()).then(number)
