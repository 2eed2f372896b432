"""``relevo init`` and ``relevo apply``: from an empty folder to a live model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from relevo.cli.client import Client
from relevo.cli.terminal import console, errors
from relevo.errors import RelevoError


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

    if (source is None) != (label is None):
        raise typer.BadParameter("--from FILE and --label COLUMN go together.")
    folder = Path(name)
    if source is not None and label is not None:
        write_project_from_csv(name, source, label, folder)
    else:
        write_project(name, folder)
    console.print(f"Wrote {folder}/. Look at {folder}/relevo.yaml, then run: relevo apply {folder}")


def apply(
    folder: Annotated[Path, typer.Argument(help="Folder with relevo.yaml and the package.")] = Path(),
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would change.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow the release until it is live or needs somebody.")] = True,
) -> None:
    """Validate the contract, show what changes, and apply it."""
    from relevo.contract.upload import read_project

    client = Client.from_settings()
    upload = read_project(folder)
    change = client.post_bytes("/api/contracts/plan", upload, "application/zip")
    show_change(change)
    if plan or change["is_empty"]:
        return
    applied = client.post_bytes("/api/contracts", upload, "application/zip")
    console.print(f"Applied {applied['model']} revision {applied['revision']}.")
    release = applied.get("release")
    if release and wait:
        follow(client, release)


def show_change(change: dict[str, Any]) -> None:
    """Print what a contract changes, a line a difference."""
    for line in change["lines"]:
        style = {"+": "green", "-": "red", "~": "yellow"}.get(line.strip().removeprefix("code ")[:1], "")
        console.print(Text(line, style=style), soft_wrap=True)


def follow(client: Client, release_id: str) -> None:
    """Show what a release does until it has ended or waits for a person."""
    with console.status("starting") as status:
        while True:
            release = client.get(f"/api/releases/{release_id}") if _has_begun(client, release_id) else None
            state = release["release"]["state"] if release else "training"
            activity = next((a for a in client.get("/api/activity") if a["workflow_id"] == release_id), None)
            if activity is None and release is not None and state not in {"training", "waiting_for_approval", "canary"}:
                break
            status.update(activity["text"] if activity else state)
            if state == "waiting_for_approval":
                break
            time.sleep(0.3)
    _show_outcome(release, release_id)


def _has_begun(client: Client, release_id: str) -> bool:
    return any(found["id"] == release_id for found in client.get("/api/releases"))


def _show_outcome(answer: dict[str, Any] | None, release_id: str) -> None:
    assert answer is not None
    release, evidence = answer["release"], answer["evidence"]
    if evidence:
        for gate in evidence["gates"]:
            mark = Text("pass ", style="green") if gate["passed"] else Text("fail ", style="red")
            console.print(mark + Text(gate["message"]))
    subject = f"{release['model']}/{release['version']}" if release["version"] else release["model"]
    if release["state"] == "waiting_for_approval":
        console.print(f"{subject} waits for a second person: relevo approve {release_id} --reason ...")
    elif release["state"] == "live":
        console.print(Text(f"{subject} is live.", style="green"))
    else:
        errors.print(Text(f"{subject}: {release['state'].replace('_', ' ')}: {release['outcome']}", style="red"))
        raise RelevoError(f"Release {release_id} did not go live.")
