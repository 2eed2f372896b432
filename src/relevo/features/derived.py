"""Derived columns: Polars expressions over a source's columns, kept as text. Light to import.

An expression becomes text where it is declared, and an expression again only in a child process (``rows``). It may say
nothing but what one row says: with a sum or a shift inside, its value would depend on which rows are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from relevo.errors import Invalid
from relevo.features.ordering import in_order


@dataclass(frozen=True, slots=True)
class Derived:
    """A column that a view computes from others.

    ``expression`` is the expression as Polars writes it in JSON; ``reads`` are the columns in it, of the source or
    derived themselves.
    """

    name: str
    expression: str
    reads: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise Invalid(f"derived column: expected a name of letters, digits and underscores, got {self.name!r}")
        if any(name.startswith(("Anonymous", "Python")) for name in _names(_json(self))):
            raise Invalid(
                f"derived column {self.name} calls a Python function",
                hint="Write it with Polars expressions alone, or compute the column in the source.",
            )


def derive(columns: Mapping[str, Any]) -> tuple[Derived, ...]:
    """The columns, each by its Polars expression, in an order in which each follows those that it reads.

    Raises:
        Invalid: One is no expression, gives several columns, calls Python, looks at other rows, or reads itself.
    """
    made = (_derived(name, expression) for name, expression in columns.items())
    return in_order(made, "derived columns")


def _derived(name: str, expression: Any) -> Derived:
    if not type(expression).__module__.startswith("polars") or not hasattr(expression, "meta"):
        raise Invalid(f"derived column {name}: expected a Polars expression such as pl.col('a'), got {expression!r}")
    meta = expression.meta
    derived = Derived(name, meta.serialize(format="json"), tuple(sorted(set(meta.root_names()))))
    if "Selector" in _names(_json(derived)):
        raise Invalid(f"derived column {name}: expected one value, got {expression}, which selects several columns")
    for part in _parts(expression):
        if not (part.meta.is_row_separable() and (part.meta.is_length_preserving() or part.meta.is_scalar())):
            raise Invalid(
                f"derived column {name}: {part} looks at more than one row",
                hint="Windows are features: mean, total, maximum and the others, over a time.",
            )
    return derived


def _parts(expression: Any) -> Iterator[Any]:
    yield expression
    for part in expression.meta.pop():
        yield from _parts(part)


def _json(column: Derived) -> object:
    try:
        return json.loads(column.expression)
    except ValueError:
        raise Invalid(f"derived column {column.name}: its expression is not what Polars writes") from None


def _names(value: object) -> Iterator[str]:
    """Every name of an operation in the JSON of an expression."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _names(item)
