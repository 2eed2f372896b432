"""``relevo init`` and ``relevo apply``: from an empty folder to a live model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from relevo.cli.client import Client
from relevo.cli.following import follow
from relevo.cli.terminal import explain, say
from relevo.errors import Invalid

FILES_SHOWN = 12
_CONTRACT = "relevo.yaml"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(apply)


def init(
    name: Annotated[str, typer.Argument(help="Name of the model, such as flight-delay.")],
    source: Annotated[Path | None, typer.Option("--from", help="A CSV file to start from.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of that file to predict.")] = None,
) -> None:
    """Write a new project that runs as it is."""
    from relevo.contract.scaffold import write_project, write_project_from_csv

    folder = Path(name)
    if source is not None and label is not None:
        table = write_project_from_csv(name, source, label, folder)
        for note in table.notes:
            say(f"- {note.replace('`', '')}", "dim")
    elif source is None and label is None:
        write_project(name, folder)
    else:
        raise typer.BadParameter("--from FILE and --label COLUMN go together.")
    say(f"Wrote {folder}/. What it promises is in {folder}/{_CONTRACT}. Next: relevo apply {folder}")


def apply(
    folder: Annotated[Path, typer.Argument(help="Folder with relevo.yaml and the package.")] = Path(),
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would change.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every field of a new model.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow the release until it is live or needs somebody.")] = True,
    reason: Annotated[str | None, typer.Option(help="Why; it is kept in the ledger.")] = None,
) -> None:
    """Validate the contract, show what changes, and apply it."""
    from relevo.contract.upload import read_project

    try:
        upload = read_project(folder)
        client = Client.from_settings()
        change = client.post_bytes("/api/contracts/plan", upload, "application/zip")
    except Invalid as error:
        raise _located(error, folder) from None
    show_change(change, folder, is_verbose=verbose)
    if change["is_empty"]:
        _show_release_under_way(client, change["model"])
        return
    if plan:
        say(f"Nothing was applied. To apply it: relevo apply {folder}", "dim")
        return
    applied = client.post_bytes("/api/contracts", upload, "application/zip", reason=reason)
    say(f"Applied {applied['model']} revision {applied['revision']}.")
    release = applied.get("release")
    if release and wait:
        follow(client, release)
    elif release:
        say(f"Release {release} has begun. Look with: relevo releases {applied['model']}")


def show_change(change: dict[str, Any], folder: Path, *, is_verbose: bool) -> None:
    """Print what a contract changes: a line a difference, or of a new model a summary."""
    if change["live_revision"] is None and not is_verbose:
        for line in summary(change):
            explain(line, "")
        say(f"Every line of it: relevo apply {folder} --plan --verbose", "dim")
        return
    for line in change["lines"]:
        style = {"+": "green", "-": "red", "~": "yellow"}.get(line.strip().removeprefix("code ")[:1], "")
        say(Text(line, style=style))


def summary(change: dict[str, Any]) -> list[str]:
    """A new model in four lines: how many fields each block of the contract sets, and the files of its package."""
    fields = {difference["field"]: difference["new"] for difference in change["differences"]}
    blocks = Counter(name.replace("[", ".").partition(".")[0] for name in fields if "." in name or "[" in name)
    files = [line.removeprefix("+ ") for line in change["code"]]
    more = f" and {len(files) - FILES_SHOWN} more" if len(files) > FILES_SHOWN else ""
    sources = dict.fromkeys(name.split(".")[1] for name in fields if name.startswith("sources."))
    return [
        f"{change['model']} is new: {fields.get('task', 'a model')}, owned by {fields.get('owner', 'nobody')}",
        f"  asks      {fields.get('label.column', '?')} from {fields.get('ask.inputs', '?')}",
        f"  reads     {', '.join(sources)}",
        f"  contract  {', '.join(f'{name} {count}' for name, count in blocks.items())}",
        f"  files     {', '.join(files[:FILES_SHOWN])}{more}",
    ]


def _located(error: Invalid, folder: Path) -> Invalid:
    """The problems of a contract with the path of their file from here, which terminals open on a click."""
    lines = error.message.splitlines()
    if not all(line.startswith(f"{_CONTRACT}:") for line in lines):
        return error
    count = "a problem" if len(lines) == 1 else f"{len(lines)} problems"
    placed = [f"{folder / line}" for line in lines]
    return Invalid("\n".join([f"The contract has {count}; nothing was applied.", *placed]), hint=error.hint)


def _show_release_under_way(client: Client, model: str) -> None:
    """What is applied already may still be on its way."""
    newest = next(iter(client.get("/api/releases", model=model, limit=1)), None)
    if newest and newest["state"] in {"training", "waiting_for_approval", "shadow", "canary"}:
        say(f"Release {newest['id']} is under way: {newest['state'].replace('_', ' ')}.")
    elif newest and newest["state"] != "live":
        words = newest["state"].replace("_", " ")
        say(f"Its last release, {newest['id']}: {words}: {newest['outcome']}")
        say(f"To train again without a change: relevo train {model} --reason WHY", "dim")
