"""``relevo score``: a version's answers for every row of a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from relevo.cli.client import Client, nearest_settings
from relevo.cli.terminal import console, explain, say, show_json

if TYPE_CHECKING:
    from relevo.scoring.model import Plan, Sources

#: Loading the sources of feature views takes minutes where they are large.
PATIENCE_SECONDS = 3600.0
_LINE_EVERY = 0.1


class Written(StrEnum):
    """How the output is written."""

    PARQUET = "parquet"
    DELTA = "delta"


class OnError(StrEnum):
    """What is done about a row that cannot be answered."""

    FAIL = "fail"
    NULL = "null"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(score)


def score(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    source: Annotated[
        str,
        typer.Option("--input", help="A Parquet file, a folder or glob of them, a Delta table, or 'query:SELECT ...'."),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the parts, or of the Delta table.")],
    version: Annotated[
        int | None, typer.Option(min=1, help="A sealed version; the one in production if left out.")
    ] = None,
    connection: Annotated[
        str | None, typer.Option(help="Of a query: NAME takes the URL in RELEVO_CONNECTION_NAME.")
    ] = None,
    input_version: Annotated[int | None, typer.Option(min=0, help="Of a Delta table; its newest if left out.")] = None,
    written: Annotated[Written, typer.Option("--format", help="How the output is written.")] = Written.PARQUET,
    keep: Annotated[
        list[str] | None, typer.Option(help="An input column to write, once a column; all if left out; none for none.")
    ] = None,
    on_error: Annotated[
        OnError, typer.Option(help="A row that cannot be answered ends the run, or is null with its error beside it.")
    ] = OnError.FAIL,
    workers: Annotated[int | None, typer.Option(min=1, help="Child processes; one a core if left out.")] = None,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Rows of a part, and in the memory of a child.")] = 65_536,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score every row of a table; the same command again goes on where it was stopped."""
    from relevo.platform.encoding import to_json
    from relevo.scoring import model as scoring
    from relevo.scoring.running import score as run

    settings = nearest_settings()
    asked = scoring.Asked(
        model=model,
        input=source,
        output=output,
        version=version,
        connection=connection,
        input_version=input_version,
        format=scoring.Format(written),
        keep=_kept(keep),
        on_error=scoring.OnError(on_error),
        chunk_rows=chunk_rows,
        workers=workers or _cores(),
    )
    control = _ControlPlane(Client.from_settings(settings, timeout_seconds=PATIENCE_SECONDS))
    try:
        with _watching(as_json) as watcher:
            outcome = run(asked, settings, control, watcher)
    except KeyboardInterrupt:
        explain("Stopped. The parts that are done stay: the same command goes on with the others.")
        raise
    if as_json:
        show_json(to_json(outcome))
        return
    _show(to_json(outcome))


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kept(keep: Sequence[str] | None) -> tuple[str, ...] | None:
    if not keep:
        return None
    return () if list(keep) == ["none"] else tuple(dict.fromkeys(keep))


def _show(outcome: dict[str, Any]) -> None:
    rows, seconds = outcome["rows"], outcome["seconds"]
    say(f"{outcome['model']}/{outcome['version']} answered {rows - outcome['failed']:,} of {rows:,} rows.", "green")
    if outcome["failed"]:
        say(f"{outcome['failed']:,} rows have no prediction. The first: {outcome['first_error']}", "yellow")
    resumed = f", {outcome['resumed_parts']} of them from before" if outcome["resumed_parts"] else ""
    say(f"{outcome['output']}: {outcome['parts']} parts{resumed}, {seconds:.1f} s", "dim")


class _ControlPlane:
    """The control plane over HTTP."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def plan(self, model: str, version: int | None) -> Plan:
        """Which version answers."""
        from relevo.platform.encoding import parse
        from relevo.scoring.model import Plan

        return parse(Plan, self._client.post(f"/api/models/{model}/scoring", {"version": version}))

    def sources(self, plan: Plan, views: Sequence[str]) -> Sources:
        """Load what views look up."""
        from relevo.platform.encoding import parse
        from relevo.scoring.model import Sources

        body = {"version": plan.version, "views": list(views), "until": plan.as_of.isoformat()}
        return parse(Sources, self._client.post(f"/api/models/{plan.model}/scoring/sources", body))


class _Bar:
    """A bar with rows a second and the time that is left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("starting", total=None, speed="")
        self._is_scoring = False

    def doing(self, what: str) -> None:
        """Show what is done."""
        self._progress.update(self._task, description=what)

    def scored(self, rows: int, failed: int, total: int) -> None:
        """Show how far it is."""
        if not self._is_scoring:  # rows from before say nothing about the speed
            self._is_scoring = True
            self._progress.reset(self._task, total=total, completed=rows)
        speed = self._progress.tasks[0].speed
        words = "" if speed is None else f"{speed:,.0f} rows/s"
        failures = f", {failed:,} without prediction" if failed else ""
        self._progress.update(
            self._task, description=f"{rows:,} of {total:,} rows{failures}", completed=rows, total=total, speed=words
        )


class _Lines:
    """A line for each step, and for each tenth of the rows."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._tenth = -1

    def doing(self, what: str) -> None:
        """Print what is done; a count that only grows is not repeated."""
        if not self._is_quiet and not what.startswith("copying"):
            say(what, "dim")

    def scored(self, rows: int, failed: int, total: int) -> None:
        """Print how far it is."""
        tenth = int(rows / total / _LINE_EVERY) if total else 0
        if not self._is_quiet and tenth > self._tenth:
            self._tenth = tenth
            say(f"{rows:,} of {total:,} rows", "dim")


@contextmanager
def _watching(as_json: bool) -> Iterator[_Bar | _Lines]:
    if as_json or not console.is_terminal:
        yield _Lines(is_quiet=as_json)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)
