"""``relevo demo``: a year of flights through the real system, faster than life."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer

#: The 39th week ends with it. The year's weather ends a day later, and would leave an alert that it is no longer fresh.
LAST_DAY = "2013-12-29"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    stop: Annotated[bool, typer.Option("--exit", help="Stop everything at the end.")] = False,
    figures: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    until: Annotated[str, typer.Option(help="Last day of the replay.")] = LAST_DAY,
) -> None:
    """Replay April to December 2013 of New York's flights: train, approve, serve, monitor, train again."""
    from relevo.cli.demo.story import run

    run(until=date.fromisoformat(until), stays=not stop, figures=figures)
