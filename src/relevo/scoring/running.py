"""A run from its beginning, or from where it was left, to its end: in the process of the command, by its children."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import polars as pl

from relevo.contract.model import Source
from relevo.datasets.connections import variable
from relevo.errors import Conflict, Invalid, RelevoError, Unavailable, nearest
from relevo.platform.clock import utc_now
from relevo.platform.objects import Objects
from relevo.platform.settings import Settings
from relevo.registry.bundles import BundleCache, read_manifest
from relevo.registry.model import Manifest
from relevo.scoring.delta import commit_parts, committed_run
from relevo.scoring.filling import wanted_views
from relevo.scoring.folder import RunFolder
from relevo.scoring.inputs import Reader, copy_query, find_input
from relevo.scoring.model import (
    ERROR,
    PREDICTION,
    ROW,
    VERSION,
    Asked,
    Format,
    InputFacts,
    Kind,
    OnError,
    Outcome,
    Part,
    Plan,
    Run,
    Sources,
)
from relevo.scoring.sourcing import keep_sources, kept_sources
from relevo.scoring.validation import sent_columns
from relevo.scoring.workers import Crew


class ControlPlane(Protocol):
    """What a run asks the control plane, with the token of who runs it."""

    def plan(self, model: str, version: int | None) -> Plan:
        """Which version answers."""
        ...

    def sources(self, plan: Plan, views: Sequence[str]) -> Sources:
        """Load what views look up."""
        ...


class Watcher(Protocol):
    """Is told how far a run is. Called from several threads, one at a time."""

    def doing(self, what: str) -> None:
        """What is done before rows are scored."""
        ...

    def scored(self, rows: int, failed: int, total: int) -> None:
        """How many rows are done, of them without a prediction, and how many there are."""
        ...


def score(asked: Asked, settings: Settings, control: ControlPlane, watcher: Watcher) -> Outcome:
    """Score the input; go on where an earlier command with the same arguments was stopped; say again what is done.

    Raises:
        NotFound: There is no such input, model or version.
        Invalid: The input does not fit the version, or with ``OnError.FAIL`` a row; the error names column and row.
        Conflict: The output is of something else, or the input, the version or an option is not that of its run.
        JobFailed: A loader of a source failed, or a child died twice on the same rows.
    """
    _check(asked)
    folder = RunFolder(asked.output)
    facts = find_input(asked)
    plan = control.plan(asked.model, asked.version)
    if not folder.has_begun:
        _require_free(folder, asked)
    with folder.locked():
        if folder.has_begun:
            run = folder.read()
            _require_same(run, _begun(run.id, plan, facts, asked, run.began_at), folder.output)
            if run.outcome is not None:
                return run.outcome
        else:
            run = _begun(uuid.uuid4().hex, plan, facts, asked, utc_now())
            folder.write(run)
        try:
            return _go_on(run, folder, asked, settings, control, watcher)
        except RelevoError:
            if not any(folder.parts(run.format).glob("*.parquet")):
                folder.forget()  # nothing is done that another attempt could be at odds with
            raise


def _go_on(
    run: Run, folder: RunFolder, asked: Asked, settings: Settings, control: ControlPlane, watcher: Watcher
) -> Outcome:
    started = time.monotonic()
    folder.clear_drafts()
    watcher.doing("reading the bundle")
    _require_home(settings)
    bundles = BundleCache(Objects(settings.folder("objects")), settings)
    bundle = bundles.fetch(run.plan.bundle)
    manifest = read_manifest(bundle)
    if run.input.kind is Kind.QUERY and not folder.copied.exists():
        _require_connection(str(run.input.connection))
        watcher.doing("asking the query")
        copy_query(run.input, folder.copied, lambda rows: watcher.doing(f"copying the query's answer: {rows:,} rows"))
    reader = Reader(run.input, folder.copied)
    sent = _check_columns(run, reader.schema, manifest)
    folder.write_schema(reader.schema)
    sources = _sources(run, folder, manifest, sent, control, watcher)
    folder.parts(run.format).mkdir(parents=True, exist_ok=True)
    done = folder.done(run)
    chunks = list(reader.chunks(run.chunk_rows))
    crew = Crew(
        python=bundles.python(bundle),
        log=settings.folder("logs") / f"scoring-{run.plan.model}.log",
        opening={"output": str(folder.output), "bundle": str(bundle), "sources": sources},
        total=sum(chunk.rows for chunk in chunks),
        done=done.values(),
        watcher=watcher.scored,
    )
    new = crew.score([chunk for chunk in chunks if chunk.number not in done], asked.workers)
    outcome = _outcome(run, folder, [(done | new)[chunk.number] for chunk in chunks], crew, resumed=len(done))
    if run.format is Format.DELTA:
        watcher.doing("committing the table")
        commit_parts([folder.part(chunk.number, run.format) for chunk in chunks], folder.output, run.id)
    outcome = replace(outcome, seconds=round(time.monotonic() - started, 3))
    folder.write(replace(run, outcome=outcome))
    folder.clear()
    return outcome


def _outcome(run: Run, folder: RunFolder, parts: Sequence[Part], crew: Crew, *, resumed: int) -> Outcome:
    return Outcome(
        model=run.plan.model,
        version=run.plan.version,
        output=str(folder.output),
        rows=sum(part.rows for part in parts),
        failed=sum(part.failed for part in parts),
        first_error=next((part.first_error for part in parts if part.first_error), None),
        parts=len(parts),
        resumed_parts=resumed,
        rows_in_flight=crew.rows_in_flight,
        restarts=crew.restarts,
        seconds=0.0,
    )


def _sources(
    run: Run, folder: RunFolder, manifest: Manifest, sent: set[str], control: ControlPlane, watcher: Watcher
) -> list[Source]:
    """The sources of the views that are looked up, as they were when the run began."""
    views = [view.name for view in wanted_views(manifest, sent)]
    if not views:
        return []
    if not folder.sources.exists():
        watcher.doing(f"loading the sources of {', '.join(views)}")
        keep_sources(control.sources(run.plan, views), folder.sources)
    return kept_sources(folder.sources)


def _begun(run_id: str, plan: Plan, facts: InputFacts, asked: Asked, began_at: datetime) -> Run:
    return Run(
        id=run_id,
        plan=plan,
        input=facts,
        format=asked.format,
        keep=asked.keep,
        on_error=asked.on_error,
        chunk_rows=asked.chunk_rows,
        began_at=began_at,
    )


def _check(asked: Asked) -> None:
    for name, value in (("workers", asked.workers), ("chunk-rows", asked.chunk_rows)):
        if value < 1:
            raise Invalid(f"--{name} is at least 1, got {value}.", field=name)


def _check_columns(run: Run, schema: pl.Schema, manifest: Manifest) -> set[str]:
    """The columns of the input that the model is asked with; refuses an input that cannot be scored or written."""
    sent = {column.name for column in sent_columns(manifest.signature, schema.names())}
    for name in run.keep or ():
        if name not in schema:
            near = nearest(name, schema.names())
            hint = f"Did you mean {near!r}?" if near else f"It has {', '.join(schema.names())}."
            raise Invalid(f"The input has no column {name!r} to keep.", field="keep", hint=hint)
    added = (PREDICTION, VERSION, ROW, *([ERROR] if run.on_error is OnError.NULL else []))
    taken = [name for name in (schema.names() if run.keep is None else run.keep) if name in added]
    if taken:
        hint = "Name the columns to keep: --keep COLUMN, once for each; or --keep none."
        raise Invalid(f"The output has a column {taken[0]!r} of its own, and the input has one too.", hint=hint)
    return sent


def _require_home(settings: Settings) -> None:
    if not (settings.root / "objects").is_dir():
        raise Unavailable(
            f"The bundles are in the home folder, and there is none at {settings.root}.",
            hint="Run relevo score on the machine of the home folder; RELEVO_HOME says where it is.",
        )


def _require_free(folder: RunFolder, asked: Asked) -> None:
    output = folder.output
    if asked.format is Format.DELTA and committed_run(output) is not None:
        raise Conflict(f"{output} is a Delta table already; name one that is not there yet.")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise Conflict(f"{output} holds something already; name a folder that is empty or not there yet.")


def _require_same(run: Run, now: Run, output: Path) -> None:
    """Refuse to go on with anything else than what the run was begun with; says what differs."""
    different: list[str] = []
    if now.plan.model != run.plan.model:
        different.append(f"the model was {run.plan.model}, and is {now.plan.model}")
    elif (now.plan.version, now.plan.bundle) != (run.plan.version, run.plan.bundle):
        different.append(f"the version was {run.plan.version}, and is {now.plan.version} (--version names one)")
    was, is_now = run.input, now.input
    if (was.kind, was.place, was.connection, was.table) != (is_now.kind, is_now.place, is_now.connection, is_now.table):
        different.append(f"the input was {was.kind} {was.place}, and is {is_now.kind} {is_now.place}")
    elif was.version != is_now.version:
        different.append(
            f"the input was version {was.version} of {was.place}, and is {is_now.version} (--input-version names one)"
        )
    elif was.files != is_now.files:
        changed = {file.path for file in {*was.files} ^ {*is_now.files}}
        different.append(f"{len(changed)} files of the input have changed, such as {min(changed)}")
    for name in ("format", "keep", "on_error", "chunk_rows"):
        before, after = getattr(run, name), getattr(now, name)
        if before != after:
            different.append(f"--{name.replace('_', '-')} was {_shown(before)}, and is {_shown(after)}")
    if different:
        raise Conflict(
            f"The run into {output} was begun otherwise: {'; '.join(different)}.",
            hint="Give the same as then to go on with it, or name another output.",
        )


def _shown(value: object) -> str:
    if value is None:
        return "all"
    return (", ".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)


def _require_connection(connection: str) -> None:
    name = variable(connection)
    if not os.environ.get(name):
        raise Unavailable(
            f"The connection {connection} needs a URL in {name}, got nothing.",
            hint=f"Set {name} where you run this command, such as postgresql://user:password@host/database.",
        )
