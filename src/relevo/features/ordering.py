"""Named things that read each other, in an order in which each follows what it reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from relevo.errors import Invalid


class Reads(Protocol):
    """Something with a name that reads others by theirs."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """The names that it reads; those that are not among the others stand for themselves."""
        ...


T = TypeVar("T", bound=Reads)


def in_order(things: Iterable[T], what: str) -> tuple[T, ...]:
    """``things``, each after those that it reads; otherwise in their own order.

    Raises:
        Invalid: Some read each other in a circle; the message names it. ``what`` says what they are.
    """
    by_name = {thing.name: thing for thing in things}
    order: dict[str, T] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise Invalid(f"{what} read each other in a circle: {circle}", hint="Give one of them another name.")
        if name in by_name and name not in order:
            for read in by_name[name].reads:
                visit(read, (*path, name))
            order[name] = by_name[name]

    for name in by_name:
        visit(name, ())
    return tuple(order.values())
